"""A cluster that is not SLURM: the cluster-generic executor by the command of docs/cluster.md, with a pretended qsub."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from one_study import config, runs
from workflow import copy_project

pytestmark = pytest.mark.slurm

PLUGIN = r"snakemake-executor-plugin-cluster-generic==[\d.]+"
# As PBS does: it takes a script, runs it somewhere else, and prints the number of the job.
QSUB = """\
#!/bin/sh
echo "$*" >> {folder}/submitted
for script; do :; done
setsid sh "$script" > "$script.out" 2>&1 < /dev/null &
echo $!
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """A folder with the plugin, which the workflow itself does not need."""
    folder = tmp_path_factory.mktemp("plugin")
    (name,) = re.findall(PLUGIN, (ROOT / "docs/cluster.md").read_text())
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, name], check=True)
    return folder


def documented(*arguments: str) -> list[str]:
    """The command of docs/cluster.md, for this Python and the configuration of a test."""
    (text,) = re.findall(
        r"^\.venv/bin/snakemake (--executor cluster-generic .*?)^```", (ROOT / "docs/cluster.md").read_text(), re.M | re.S
    )
    words = shlex.split(text.replace("\\\n", " "))
    place = words.index("scale=full")
    return [
        sys.executable,
        "-m",
        "snakemake",
        *arguments,
        "--seconds-between-status-checks",
        "1",
        *words[:place],
        *config(["calm"]),
        *words[place + 1 :],
    ]


def test_a_study_is_probed_trained_and_reported_where_there_is_no_slurm(plugin, tmp_path):
    project = copy_project(tmp_path / "project")
    programs = {
        name: f"#!/bin/sh\necho {name} >> {tmp_path}/asked\nexit 127\n" for name in ("sbatch", "sacct", "squeue", "scontrol")
    }
    for name, text in {**programs, "qsub": QSUB.format(folder=tmp_path)}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(plugin)}
    done = subprocess.run(documented("all", "probe"), cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    results = project / "results/demo/vggt-eth3d"
    assert set(pd.read_csv(results / "probe.csv")["outcome"]) == {"completed"}
    assert (results / "report.html").is_file()
    run = runs(project, ["calm"])["calm"]
    assert run.result()["outcome"] == "completed"
    asked = (tmp_path / "submitted").read_text()
    sent = {"prepare_part", "cache_prefix", "evaluate_base", "probe_study", "train_run"}
    assert set(re.findall(r"-N (\w+)", asked)) == sent
    sizes = dict(re.findall(r"-N (\w+) -l select=1:(\S+)", asked))
    assert (
        re.fullmatch(r"ncpus=\d+:ngpus=1:mem=\d+mb,walltime=\d+:00", sizes["train_run"])
        and sizes["probe_study"] == sizes["train_run"]
    )
    slurm = tmp_path / "asked"
    # Snakemake's plugin looks for SLURM's version where it is loaded.
    assert not slurm.exists() or set(slurm.read_text().split()) == {"scontrol"}
