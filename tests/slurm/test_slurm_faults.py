"""What can go wrong on a cluster, on a real SLURM: the study ends, its numbers are those of the run that nothing disturbed, no
job is left, and no two jobs train one run.

Faults that do not touch each other happen in one session of Snakemake, each to a run of its own; all runs are one training.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Snakemake, accounting, booted, queue, wait_until
from faults import survived
from one_study import EVERY, Run, alive, config, kill_job, pending, runs
from workflow import copy_project

pytestmark = [pytest.mark.slurm, pytest.mark.fault]

CASES = {
    "killed": "kill -9 of the trainer",
    "cancelled": "scancel of a training job",
    "preempted": "preemption and requeue",
    "limited": "time limit",
    "crashed": "node failure",
    "full": "full disk",
    "hungry": "host out of memory",
}
QUEUED = ["first", "second", "third", "fourth", "fifth"]
NAMES = ["calm", *CASES, "absent", "orphan", *QUEUED]
LIMIT = 500  # seconds in which a session ends; on two idle cores about 120
TRAINING = "set-resources:\n  train_run:\n"
# Training may be preempted, and the first attempt at one run has too little memory.
SCAVENGED = """\
    slurm_partition: scavenge
    mem_mb: "450 if attempt == 1 and wildcards.run.startswith('hungry') else 2000"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A node a run. Jobs over their memory are killed, a silent node is soon down, and a user may have a limit."""
    knobs = {"nodes": 8, "gpus": 1, "memkill": 1, "deadnode": 10, "killwait": 30, "enforce": 1}
    with booted(tmp_path_factory.mktemp("slurm"), **knobs) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project with the data prepared, the pretrained model evaluated, and the run ``calm`` undisturbed, without SLURM."""
    project = copy_project(tmp_path_factory.mktemp("clone") / "project")
    profile = project / "profiles/slurm/config.yaml"
    assert profile.read_text().count(TRAINING) == 1
    profile.write_text(profile.read_text().replace(TRAINING, TRAINING + SCAVENGED))
    command = [sys.executable, "-m", "snakemake", runs(project, NAMES)["calm"].target, "--profile", "local", "-c2"]
    done = subprocess.run([*command, "--config", *config(NAMES)], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return project


class Watch(threading.Thread):
    """Looks all the time how many processes train each run."""

    def __init__(self, watched: list[Run]):
        super().__init__(daemon=True)
        self.watched, self.most, self.done = watched, dict.fromkeys((run.id for run in watched), 0), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            for run in self.watched:
                self.most[run.id] = max(self.most[run.id], len(run.trainers()))


@dataclass
class Session:
    """Snakemake's output, the most trainers of each run at once, when each fault began (Unix seconds), and what came of it."""

    output: str = ""
    trainers: dict[str, int] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    faults: dict[str, Future] = field(default_factory=dict)


def middle(run: Run) -> dict[str, Any]:
    """The start of the attempt that trains, some steps after its first checkpoint."""
    return wait_until(run.in_its_middle, f"{run.id} in its middle", LIMIT, pause=0.05)


# --- a fault to one run ---------------------------------------------------------------------------------------------------
# Each takes the run, and the start of the attempt that trains it.


def kill_trainer(run: Run, start: dict[str, Any]) -> None:
    os.kill(start["process"], signal.SIGKILL)


def cancel(run: Run, start: dict[str, Any]) -> None:
    slurm("scancel", start["slurm_job"])


def preempt(run: Run, start: dict[str, Any]) -> None:
    """A job of a partition of higher tier wants the run's node."""
    ask = ["--partition=gpu", f"--nodelist={node_of(start)}", "--gpus=1", "--mem=100", "--output=/dev/null", "--wrap=sleep 3"]
    slurm("sbatch", *ask)
    hurry(run, start["slurm_job"])


def reach_the_limit(run: Run, start: dict[str, Any]) -> None:
    """The time limit comes near. The trainer is held until SLURM, which looks every 30 s, has sent its warning."""
    os.kill(start["process"], signal.SIGSTOP)
    slurm("scontrol", "update", f"jobid={start['slurm_job']}", "timelimit=4")
    wait_until(lambda: pending(start["process"], signal.SIGUSR1), "SLURM's warning", 60)
    if alive(start["process"]):
        os.kill(start["process"], signal.SIGCONT)
    hurry(run, start["slurm_job"], "timelimit=30")


def crash_node(cluster: Cluster) -> Callable[[Run, dict[str, Any]], None]:
    """The node's daemon and all of the job's processes are gone at once."""

    def crash(run: Run, start: dict[str, Any]) -> None:
        node = node_of(start)
        cluster("node", node, "kill")
        kill_job(start["slurm_job"])
        hurry(run, start["slurm_job"])
        cluster("node", node, "start")

    return crash


def fill_disk(run: Run, start: dict[str, Any]) -> str:
    """The disk of the run's checkpoints is full, until the attempt has failed. Returns what its log says."""
    filler = run.state / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    wait_until(lambda: not run.trainers(), "the end of the attempt", 100)
    filler.unlink()
    return run.log.read_text().splitlines()[-1]


def slurm(*command: str) -> str:
    """A command of SLURM; returns what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def node_of(start: dict[str, Any]) -> str:
    return slurm("squeue", "-h", "-j", start["slurm_job"], "-o", "%N")


def hurry(run: Run, job: str, *changes: str) -> None:
    """Let a job that is queued again run at once, with ``changes``: SLURM has it wait for two minutes."""
    before = run.attempts()

    def runs_again() -> bool:
        if "JobState=PENDING" in slurm("scontrol", "show", "job", job):
            change = ["scontrol", "update", f"jobid={job}", *changes, "starttime=now"]
            subprocess.run(change, check=False, capture_output=True)
        return run.attempts() > before

    wait_until(runs_again, f"{run.id} again", LIMIT, pause=1)


# --- each run has a fault of its own --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(cluster, project) -> Iterator[Session]:
    """One session of Snakemake with all these faults."""
    faults = {
        "killed": kill_trainer,
        "cancelled": cancel,
        "preempted": preempt,
        "limited": reach_the_limit,
        "crashed": crash_node(cluster),
        "full": fill_disk,
    }
    disturbed = {name: run for name, run in runs(project, NAMES).items() if name in CASES}
    disk = disturbed["full"].state
    disk.mkdir(parents=True)
    slurm("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk))
    session, watch = Session(began={"hungry": time.time()}), Watch(list(disturbed.values()))

    def cause(name: str) -> str | None:
        start = middle(disturbed[name])
        session.began[name] = time.time()
        return faults[name](disturbed[name], start)

    try:
        watch.start()
        targets = [run.target for run in disturbed.values()]
        snakemake = Snakemake(project, *targets, config=config(NAMES), impatient=True)
        with ThreadPoolExecutor(len(faults)) as threads:
            session.faults = {name: threads.submit(cause, name) for name in faults}
            session.output = snakemake.end(LIMIT)
        watch.done.set()
        session.trainers = watch.most
        yield session
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


# What SLURM's accounting says of the jobs, and by which signal the first attempt left, if it could.
STATES = {
    "killed": (["FAILED", "COMPLETED"], None),
    "cancelled": (["CANCELLED", "COMPLETED"], "SIGTERM"),
    "preempted": (["PREEMPTED", "COMPLETED"], "SIGTERM"),
    "limited": (["REQUEUED", "COMPLETED"], "SIGUSR1"),
    "crashed": (["NODE_FAIL", "COMPLETED"], None),
    "full": (["FAILED", "COMPLETED"], None),
    "hungry": (["FAILED", "COMPLETED"], None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_survives(name, own, project):
    run, (states, left_by) = runs(project, NAMES)[name], STATES[name]
    told = own.faults[name].result() if name in own.faults else None
    assert run.result() == runs(project, NAMES)["calm"].result()
    assert own.trainers[run.id] == 1
    wait_until(lambda: queue() == [], "an empty queue", 20)
    accounted(run, states)
    first = next((event for event in run.events() if event["event"] == "end"), {})
    if left_by:
        assert (first["how"], first["reason"]) == ("preempted", left_by) and run.repeated() == 0
    assert run.repeated() < 2 * EVERY
    assert name != "full" or told.startswith("error: "), told
    logs = sorted((run.log.parent / "attempts").glob(f"{run.id}.*.log"), key=lambda path: path.stat().st_mtime_ns)
    assert len(logs) == run.attempts() and (told is None or logs[0].read_text().splitlines()[-1] == told)
    seconds = (run.folder / "metrics.json").stat().st_mtime - own.began[name]
    survived(CASES[name], "slurm", seen=seen(run, own, told), seconds=seconds, repeated=run.repeated(), same="bit for bit")


def accounted(run: Run, states: list[str]) -> None:
    """The jobs of a run ended so by SLURM's accounting, which hears of it after Snakemake."""
    wait_until(lambda: training_jobs(run) == states, f"jobs that ended as {states}", 60)


def training_jobs(run: Run) -> list[str]:
    """How the jobs of a run ended, each time that they were started."""
    jobs = [job for job in accounting() if job["Comment"].startswith("rule_train_run") and run.id in job["Comment"]]
    return [job["State"].split()[0] for job in jobs]


def seen(run: Run, session: Session, told: str | None) -> str:
    """What the user sees: Snakemake's words, and the end of the run's log where the fault ``told`` that."""
    jobs = {event["slurm_job"] for event in run.events() if event["event"] == "start"}
    failed = re.findall(r"SLURM-job '(\w+)' failed, SLURM status is: '(\w+)'", session.output)
    states = [status for job, status in failed if job in jobs]
    said = f"Snakemake: SLURM status {', '.join(states)}; sent again" if states else "nothing: SLURM starts the job again"
    return "; ".join(filter(None, [said, told]))


# --- SLURM takes no job, or answers nothing ------------------------------------------------------------------------------

# Of four jobs it sends one.
SBATCH = """#!/bin/sh
echo >> {folder}/calls
if [ $(($(wc -l < {folder}/calls) % 4)) != 0 ]; then
    echo 'sbatch: error: Batch job submission failed: Unexpected message received' >&2
    exit 1
fi
exec {program} "$@"
"""
# Once, while jobs run, it has none.
SQUEUE = """#!/bin/sh
case "$*" in
*--states=all*)
    if [ ! -e {folder}/silent ] && [ -n "$(sacct -nXs RUNNING)" ]; then
        : > {folder}/silent
        exit 0
    fi
    ;;
esac
exec {program} "$@"
"""


@contextmanager
def full_queue(jobs: int) -> Iterator[None]:
    """The user may have so many jobs in the queue, and these do not begin."""
    slurm("sacctmgr", "-i", "modify", "user", "root", "set", f"MaxSubmitJobs={jobs}")
    slurm("scontrol", "update", "partitionname=scavenge", "state=DOWN")
    try:
        yield
    finally:
        slurm("scontrol", "update", "partitionname=scavenge", "state=UP")


def test_slurm_may_refuse_jobs_and_answer_nothing(cluster, project, tmp_path):
    """Five runs, and no retry: what bridges it are profiles/slurm/bin/. A Snakemake that is interrupted first leaves no job."""
    queued = [run for name, run in runs(project, NAMES).items() if name in QUEUED]
    arguments = [*(run.target for run in queued), "--retries", "0"]
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE}.items():
        (tmp_path / name).write_text(text.format(folder=tmp_path, program=shutil.which(name)))
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SBATCH_PAUSE": "0.2"}
    waits = "sbatch waits: AssocMaxSubmitJobLimit "

    with full_queue(3):
        interrupted = Snakemake(project, *arguments, config=config(NAMES), impatient=True, environment={"SBATCH_PAUSE": "1"})
        wait_until(lambda: waits in interrupted.log.read_text(), "a job that waits to be sent", LIMIT)
        os.kill(interrupted.process.pid, signal.SIGINT)
        interrupted.process.wait(LIMIT)
        wait_until(lambda: queue() == [], "an empty queue", 20)
    before = [training_jobs(run) for run in queued]

    began = time.time()
    with full_queue(3):
        snakemake = Snakemake(project, *arguments, config=config(NAMES), impatient=True, environment=environment)
        wait_until(lambda: waits in snakemake.log.read_text(), "a job that waits to be sent", LIMIT)
    output = snakemake.end(LIMIT)
    assert [run.result() for run in queued] == [runs(project, NAMES)["calm"].result()] * len(queued)
    for run, earlier in zip(queued, before, strict=True):
        accounted(run, [*earlier, "COMPLETED"])
    assert {job["JobName"].rsplit(".", 1)[0] for job in accounting()} >= {f"{run.id}.vggt-eth3d" for run in queued}
    unknown = "sbatch waits: Unexpected message received"
    slurm("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")
    assert unknown in output and "failed, SLURM status" not in output
    assert (tmp_path / "silent").exists()
    seconds = max((run.folder / "metrics.json").stat().st_mtime for run in queued) - began
    told = {"seconds": seconds, "repeated": sum(run.repeated() for run in queued), "same": "bit for bit"}
    survived("submit limit below the number of runs", "slurm", seen=f"{waits}…", **told)
    survived("sbatch fails in unknown words three times of four", "slurm", seen=f"{unknown}", **told)
    survived("the queue answers nothing once", "slurm", seen="nothing", **told)


# --- the cluster's daemons are away ---------------------------------------------------------------------------------------


def test_the_daemons_may_be_away_while_jobs_are_sent_and_while_they_run(cluster, project):
    """Neither a retry nor a second status query is allowed here: what bridges the outages are profiles/slurm/bin/."""
    run = runs(project, NAMES)["absent"]
    watch = Watch([run])
    watch.start()
    cluster("ctld", "stop")  # in order: one that was just installed has nothing yet to start from without its accounting
    cluster("dbd", "kill")
    began = time.time()
    once = ["--retries", "0", "--slurm-status-attempts", "1"]
    snakemake = Snakemake(project, run.target, *once, config=config(NAMES), impatient=True)
    wait_until(lambda: f"train and evaluate {run.id}" in snakemake.log.read_text(), "the job sent", LIMIT)
    time.sleep(15)  # sbatch's own patience is 10 s
    assert run.events() == []
    cluster("ctld", "start")
    middle(run)
    cluster("ctld", "kill")
    wait_until(lambda: run.events()[-1]["event"] == "end", "the end of the training", LIMIT)
    time.sleep(5)
    cluster("ctld", "start")
    cluster("dbd", "start")
    snakemake.end(LIMIT)
    watch.done.set()
    assert run.result() == runs(project, NAMES)["calm"].result()
    assert watch.most[run.id] == 1
    accounted(run, ["COMPLETED"])
    wait_until(lambda: queue() == [], "an empty queue", 20)
    seconds = (run.folder / "metrics.json").stat().st_mtime - began
    told = {"seen": "nothing: its jobs wait", "seconds": seconds, "repeated": run.repeated(), "same": "bit for bit"}
    survived("controller killed while jobs are sent, and while they run", "slurm", **told)
    survived("accounting away while jobs are sent and run", "slurm", **told)


# --- Snakemake is killed --------------------------------------------------------------------------------------------------


def test_snakemake_may_be_killed_and_started_again_while_its_job_trains(cluster, project):
    """The second job for the run waits for the result of the first, which is held until the second has come."""
    run = runs(project, NAMES)["orphan"]
    watch = Watch([run])
    watch.start()
    first = Snakemake(project, run.target, config=config(NAMES), impatient=True)
    start = middle(run)
    os.kill(start["process"], signal.SIGSTOP)
    began = time.time()
    first.signal(signal.SIGKILL)
    first.process.wait()
    command = [sys.executable, "-m", "snakemake", "--unlock", "--profile", "slurm", "--config", *config(NAMES)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    second = Snakemake(project, run.target, config=config(NAMES), impatient=True)
    waits = "waiting for the job that trains this run"
    wait_until(lambda: run.log.is_file() and waits in run.log.read_text(), "the second job", LIMIT)
    os.kill(start["process"], signal.SIGCONT)
    second.end(LIMIT)
    watch.done.set()
    assert run.result() == runs(project, NAMES)["calm"].result()
    assert watch.most[run.id] == 1
    accounted(run, ["COMPLETED", "COMPLETED"])
    assert [event["event"] for event in run.events()] == ["start", "train", "end"] and run.repeated() == 0
    wait_until(lambda: queue() == [], "an empty queue", 20)
    seconds = (run.folder / "metrics.json").stat().st_mtime - began
    sentence = re.search(r"waiting for the job .*", run.log.read_text())[0]
    survived("kill -9 of Snakemake, started again", "slurm", seen=sentence, seconds=seconds, repeated=0, same="bit for bit")
