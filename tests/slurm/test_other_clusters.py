"""A cluster that is not SLURM: Snakemake's cluster-generic executor, with a command that submits as qsub or bsub does."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from one_study import config, runs
from workflow import copy_project

pytestmark = pytest.mark.slurm

PLUGIN = "snakemake-executor-plugin-cluster-generic==1.0.9"
# As docs/cluster.md has it for PBS, with ./submit in place of qsub and its options.
SUBMIT = "./submit {rule} {threads} {resources.mem_mb} {resources.runtime} {resources.gpu}"
RUNS = """\
#!/bin/sh
echo "$1 $2 $3 $4 $5" >> submitted
setsid sh "$6" > /dev/null 2>&1 < /dev/null &
echo $!
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """A folder with the plugin, which the workflow itself does not need."""
    folder = tmp_path_factory.mktemp("plugin")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PLUGIN]
    subprocess.run(pip, check=True)
    return folder


def test_a_study_is_probed_trained_and_reported_where_there_is_no_slurm(plugin, tmp_path):
    project = copy_project(tmp_path / "project")
    absent = tmp_path / "absent"
    absent.mkdir()
    for name in ("sbatch", "sacct", "squeue", "scontrol", "scancel"):
        (absent / name).write_text(f"#!/bin/sh\necho {name} >> {absent}/asked\nexit 127\n")
        (absent / name).chmod(0o755)
    (project / "submit").write_text(RUNS)
    (project / "submit").chmod(0o755)
    command = [sys.executable, "-m", "snakemake", "all", "probe", "--executor", "cluster-generic", "--jobs", "2"]
    command += ["--cluster-generic-submit-cmd", SUBMIT, "--seconds-between-status-checks", "1", "--config", *config(["calm"])]
    environment = {**os.environ, "PATH": f"{absent}:{os.environ['PATH']}", "PYTHONPATH": str(plugin)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    results = project / "results/demo/vggt-eth3d"
    assert set(pd.read_csv(results / "probe.csv")["outcome"]) == {"completed"}
    assert (results / "report.html").is_file()
    run = runs(project, ["calm"])["calm"]
    assert run.result()["outcome"] == "completed"
    submitted = sorted((project / "submitted").read_text().splitlines())
    assert submitted == ["evaluate_base", "prepare_part", "probe_study 1", "train_run"]
    assert not (absent / "asked").exists()
