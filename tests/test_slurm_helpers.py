"""The programs that stand before SLURM's own (profiles/slurm/bin): an absence of its daemons costs no job."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

HELPERS = ROOT / "profiles/slurm/bin"
ASKED = [
    "sacct",
    "-X",
    "--parsable2",
    "--clusters",
    "all",
    "--noheader",
    "--format=JobIdRaw,State",
    "--starttime",
    "2026-01-01T00:00",
]
ASKED += ["--endtime", "now", "--name", "session"]  # as Snakemake's plugin asks


@pytest.fixture
def slurm(tmp_path):
    """Pretended programs of SLURM; returns what puts one there: its name, and the lines of shell that it is."""

    def put(name: str, *lines: str) -> None:
        (tmp_path / name).write_text("\n".join(["#!/bin/sh", *lines]))
        (tmp_path / name).chmod(0o755)

    return put


def ask(folder: Path, *command: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(HELPERS), str(folder), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "SBATCH_PAUSE": "0.01"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)


def states(folder: Path) -> dict[str, str]:
    done = ask(folder, *ASKED)
    assert done.returncode == 0, done.stderr
    return dict(line.split("|") for line in done.stdout.splitlines())


def test_a_job_is_sent_again_until_the_controller_answers(slurm, tmp_path):
    away = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    slurm(
        "sbatch",
        f'echo "$@" >> {tmp_path}/calls',
        f'[ $(wc -l < {tmp_path}/calls) -gt 3 ] || {{ echo "{away}" >&2; exit 1; }}',
        "echo 17",
    )
    done = ask(tmp_path, "sbatch", "--parsable", "--wrap=a 'b c'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "17\n", "")
    assert (tmp_path / "calls").read_text() == "--parsable --wrap=a 'b c'\n" * 4


def test_what_slurm_refuses_is_refused_at_once(slurm, tmp_path):
    slurm("sbatch", f"echo x >> {tmp_path}/calls", "echo 'sbatch: error: invalid partition specified: gpu' >&2", "exit 3")
    done = ask(tmp_path, "sbatch", "job.sh")
    assert done.returncode == 3 and "invalid partition" in done.stderr
    assert (tmp_path / "calls").read_text() == "x\n"


def test_the_queue_is_believed_before_the_accounting(slurm, tmp_path):
    slurm("sacct", "echo '1|RUNNING'; echo '2|CANCELLED by 0'; echo '3|COMPLETED'; echo '4|FAILED'")
    slurm("squeue", "echo '1|COMPLETED'; echo '4|PENDING'; echo '5|PREEMPTED'; echo '6|RUNNING'")
    assert states(tmp_path) == {
        "1": "COMPLETED",
        "2": "CANCELLED",  # and not "by" whom, which the plugin does not know
        "3": "COMPLETED",  # forgotten by the queue
        "4": "PENDING",  # queued again
        "5": "FAILED",  # preempted for good
        "6": "RUNNING",
    }


def test_a_job_that_the_controller_has_lost_has_failed(slurm, tmp_path):
    slurm("sacct", "echo '1|RUNNING'; echo '2|PENDING'")
    slurm("squeue", "echo '2|PENDING'")
    assert states(tmp_path) == {"1": "FAILED", "2": "PENDING"}


def test_a_daemon_that_is_away_fails_no_job(slurm, tmp_path):
    slurm("sacct", "echo '1|RUNNING'; echo '2|COMPLETED'")
    slurm("squeue", "exit 1")
    assert states(tmp_path) == {"1": "RUNNING", "2": "COMPLETED"}
    slurm("sacct", "exit 1")
    assert states(tmp_path) == {}
    slurm("squeue", "echo '1|RUNNING'")
    assert states(tmp_path) == {"1": "RUNNING"}


def test_other_questions_go_to_the_accounting_as_they_are(slurm, tmp_path):
    slurm("sacct", 'echo "$@"', "exit 4")
    done = ask(tmp_path, "sacct", "-o", "JobID,State", "-j", "17")
    assert (done.returncode, done.stdout) == (4, "-o JobID,State -j 17\n")
