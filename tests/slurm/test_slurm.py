"""The workflow on a real SLURM, booted on this machine: several nodes, GPU resources, accounting."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from test_workflow import copy_project

pytestmark = pytest.mark.slurm

CLUSTER = Path(__file__).parent / "cluster.sh"
NODES, GPUS = 3, 2
QUICK = ["--slurm-init-seconds-before-status-checks", "5", "--max-status-checks-per-second", "1"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM with ``NODES`` nodes of ``GPUS`` (pretended) RTX 4090."""
    lab = tmp_path_factory.mktemp("slurm")
    environment = {
        **os.environ,
        "SLURM_LAB": str(lab / "lab"),
        "SLURM_LAB_NODES": str(NODES),
        "SLURM_LAB_GPUS": str(GPUS),
    }
    lab.chmod(0o755)
    for parent in lab.parents:  # the database runs as its own user and must reach its files
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    subprocess.run([CLUSTER, "start"], env=environment, check=True)
    yield
    subprocess.run([CLUSTER, "stop"], env=environment, check=True)


@pytest.fixture(scope="module")
def project(cluster, tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clone") / "project")


def start(project: Path, *arguments: str, config=()) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *arguments]
    command += ["--config", *config] if config else []
    return subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A shell that runs something in the background has it ignore SIGINT, and all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end(process: subprocess.Popen, limit: float) -> str:
    """Wait for Snakemake; one that hangs is interrupted (which cancels its jobs) and fails the test."""
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        pytest.fail(f"Snakemake did not end in {limit} s:\n{output[-3000:]}")
    assert process.returncode == 0, output[-4000:]
    return output


def accounting(since: str = "now-1hour") -> list[dict[str, str]]:
    """The jobs as SLURM's accounting has them."""
    fields = "JobID,JobName,Partition,Comment,State,NodeList,AllocTRES,ExitCode"
    done = subprocess.run(["sacct", "-X", "-n", "-P", "-S", since, "-o", fields], capture_output=True, text=True, check=True)
    return list(csv.DictReader(done.stdout.splitlines(), fieldnames=fields.split(","), delimiter="|"))


def queue() -> list[tuple[str, str, str]]:
    """Id, state and comment of the jobs in the queue."""
    done = subprocess.run(["squeue", "-h", "-o", "%i|%T|%k"], capture_output=True, text=True, check=True)
    return [tuple(line.split("|", 2)) for line in done.stdout.splitlines()]


def test_the_demo_study_by_its_literal_command(project):
    end(start(project), limit=900)
    results = project / "results/demo/vggt-eth3d"
    table = pd.read_parquet(results / "runs.parquet")
    assert len(table) == 12 and set(table["outcome"]) == {"completed"} and (results / "report.html").is_file()
    training = [job for job in accounting() if job["Comment"].startswith("rule_train_run")]
    assert {re.search(r"vggt-eth3d_(.+)$", job["Comment"])[1] for job in training} == set(table["run"])
    for job in training:
        assert job["State"] == "COMPLETED"
        assert re.fullmatch(r"gpu0[1-3]", job["NodeList"]), "a job must not be split over nodes"
        assert "gres/gpu=1" in job["AllocTRES"].split(",")
    assert len({job["NodeList"] for job in training}) > 1
    assert not any("gres/gpu" in job["AllocTRES"] for job in accounting() if job["Comment"].startswith("rule_prepare_part"))
    assert queue() == []


def test_a_cancelled_job_is_noticed_and_sent_again(project):
    """scancel of a training job in its middle: Snakemake sends it again, and it continues from its checkpoint."""
    config = ["training={steps: 120, checkpoint_every: 10}", "sweep={strategy: A, rank: 4, seed: 7}"]
    process = start(project, *QUICK, config=config)
    log, cancelled, deadline = None, None, time.monotonic() + 300
    while cancelled is None and time.monotonic() < deadline:
        for job, state, comment in queue():
            log = next((project / "results/demo/vggt-eth3d/runs").glob("A-r4-*-s7-*/trainer.log"), None)
            if (
                comment.startswith("rule_train_run")
                and state == "RUNNING"
                and log
                and "checkpoint at step 20" in log.read_text()
            ):
                subprocess.run(["scancel", job], check=True)
                cancelled = job
        time.sleep(0.2)
    assert cancelled is not None, "the training job was never seen in its middle"
    end(process, limit=600)
    of_run = [job for job in accounting() if job["Comment"].startswith("rule_train_run") and "-s7-" in job["Comment"]]
    assert [job["State"].split()[0] for job in of_run] == ["CANCELLED", "COMPLETED"]
    assert re.search(r"resuming after step \d+0", log.read_text())
    assert queue() == []


# --- probes: submitit's job arrays ------------------------------------------------------------------------------------


@pytest.fixture
def scavenging(cluster, tmp_path):
    """A project whose profile names another partition than the cluster's default, and a model of GPU."""
    project = copy_project(tmp_path / "project")
    profile = project / "profiles/slurm/config.yaml"
    text = profile.read_text().replace("slurm_partition: gpu", "slurm_partition: scavenge")
    profile.write_text(text + "set-resources: {train_run: {gpu_model: rtx4090}}\n")
    return project


def tasks(state: str) -> list[str]:
    """Ids of the probes in the queue, each task of an array with its own."""
    done = subprocess.run(["squeue", "-h", "-r", "-n", "probe", "-t", state, "-o", "%i"], capture_output=True, text=True)
    return done.stdout.split()


def wait_until(condition, what: str, limit: float = 200):
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never saw {what}"
        time.sleep(0.2)
    return found


def test_probes_are_arrays_and_what_is_interrupted_or_cancelled_is_made_up_for(scavenging):
    """One cell at a time: interrupted after the first; then, of more, one cancelled while it runs and one in the queue."""
    results = scavenging / "results/demo/vggt-eth3d"
    probe = ["probe", "--jobs", "1"]
    config = ["sweep={strategy: [A, B, C], rank: 4, seed: [0, 1]}"]

    def records() -> dict[str, int]:
        return {path.stem: path.stat().st_mtime_ns for path in (results / "probe").glob("*-*.json")}

    process = start(scavenging, *probe, config=config)
    wait_until(records, "the first record")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    wait_until(lambda: not queue(), "the queue empty after an interrupt", 60)
    first = records()
    assert 1 <= len(first) < 3 and not (results / "probe.csv").exists()

    process = start(scavenging, *probe, config=["sweep={strategy: [A, B, C], rank: [4, 8], seed: [0, 1]}"])

    def begun() -> list[str]:
        return [task for task in tasks("RUNNING") if list(results.glob(f"**/{task}_0_log.out"))]

    running = wait_until(lambda: begun() if tasks("PENDING") else None, "a task that runs before others")
    subprocess.run(["scancel", running[0], tasks("PENDING")[-1]], check=True)
    output = end(process, limit=400)
    table = pd.read_csv(results / "probe.csv")
    assert table["outcome"].value_counts().to_dict() == {"completed": 4, "failed": 2} and "2 failed" in output
    reasons = sorted(table["reason"].dropna())
    assert reasons[0].startswith("SLURM: CANCELLED"), reasons
    assert reasons[1] == "SLURM: left the queue unrun; cancelled?", reasons
    second = records()
    assert {name: second[name] for name in first} == first and len(second) == 4

    end(start(scavenging, *probe, config=["sweep={strategy: [A, B, C], rank: [4, 8], seed: [0, 1]}"]), limit=300)
    assert set(pd.read_csv(results / "probe.csv")["outcome"]) == {"completed"}
    assert {name: time_ for name, time_ in records().items() if name in second} == second
    jobs = [job for job in accounting() if job["JobName"] == "probe"]
    assert all(re.fullmatch(r"\d+_\d+", job["JobID"]) for job in jobs)
    assert {job["Partition"] for job in jobs} == {"scavenge"}
    assert all("gres/gpu:rtx4090=1" in job["AllocTRES"] for job in jobs if job["State"] == "COMPLETED")
    assert queue() == []
