"""Where jobs run is asked by the executor's name, and what cannot work there is refused before anything runs."""

import subprocess
import sys

import pytest
from workflow import copy_project

STUDY = ["--config", "studies=vggt-eth3d", "scale=demo"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clone") / "project")


def dry_run(project, *arguments: str, config=()) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "probe", "-n", "-p", *arguments, *STUDY, *config]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "cluster"),
    {
        ("-j2",): "--cluster  --log",  # this machine, though as many jobs are allowed as with a cluster
        ("--profile", "local"): "--cluster  --log",
        ("--executor", "slurm", "-j2"): "--cluster '{\"jobs\":2}'",
        ("--profile", "slurm"): '"slurm_partition":"gpu"',
    }.items(),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_probes_go_to_slurm_where_that_is_the_executor(arguments, cluster, project):
    done = dry_run(project, *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "probe_study.py" in line]
    assert cluster in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        ("--shared-fs-usage", "none"): "--shared-fs-usage without input-output persistence sources: ",
        ("--shared-fs-usage", "persistence", "input-output"): "--shared-fs-usage without sources: ",
    }.items(),
)
def test_a_file_system_that_jobs_do_not_share_is_refused(arguments, words, project):
    done = dry_run(project, "--executor", "slurm", "-j2", *arguments)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {words}runs need one file system") and "mount a volume" in line
