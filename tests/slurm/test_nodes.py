"""A run on two nodes of a real SLURM ends as its two processes do on one; a process killed on the other node ends both."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster import Snakemake, accounting, booted, queue, wait_until
from faults import survived
from workflow import copy_project

from ablation.attempts import Journal
from ablation.study import load_study
from ablation.sweep import expand
from ablation.yamlfile import parse_yaml

pytestmark = [pytest.mark.slurm, pytest.mark.fault]

STUDY, EVERY = "vggt-eth3d", 10
SETTINGS = {
    "data": "{scenes: [library], split: {by: image, train: 0.7, test: []}, frames: 2, resolution: [42, 56]}",
    "training": f"{{steps: 60, checkpoint_every: {EVERY}}}",
    "evaluation": "{pictures: 0}",
    "sweep": "{strategy: A, rank: 4, batch: 1, gpus: 2, seed: 0}",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes with a (pretended) GPU each: two GPUs are on both or nowhere."""
    with booted(tmp_path_factory.mktemp("slurm"), nodes=2, gpus=1) as cluster:
        yield cluster


def arguments(nodes: int) -> list[str]:
    """The study for --config, its run on ``nodes``."""
    return [f"studies={STUDY}", "scale=demo", f"compute={{nodes: {nodes}}}", *(f"{k}={v}" for k, v in SETTINGS.items())]


def target(project: Path) -> Path:
    """The results of the only run."""
    changes = {name: parse_yaml(text) for name, text in SETTINGS.items()}
    (run,) = expand(load_study(project / f"config/studies/{STUDY}.yaml", {"scale": "demo", **changes}), STUDY)
    return Path(f"results/demo/{STUDY}/runs/{run.id}/metrics.json")


def result(folder: Path) -> dict[str, Any]:
    """All that must not differ between two runs of the same training."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader((folder / "history.csv").open())]
    weights = (folder / "adapter/adapter_model.safetensors").read_bytes()
    return {"metrics": json.loads((folder / "metrics.json").read_text())["metrics"], "history": rows, "weights": weights}


def on_the_other_node(folder: Path) -> psutil.Process | None:
    """The second process of the run, once it trains beyond a checkpoint."""
    history = folder / "state/history.csv"
    if not history.is_file() or history.read_text().count("\n") < 2 * EVERY:
        return None
    for process in psutil.process_iter(["cmdline"]):
        if "scripts/train_run.py" in (process.info["cmdline"] or []) and process.environ().get("RANK") == "1":
            return process
    return None


def test_two_nodes_train_as_one_does_also_when_a_process_is_killed(cluster, tmp_path):
    project = copy_project(tmp_path / "project")
    run = target(project)
    local = [sys.executable, "-m", "snakemake", str(run), "--profile", "local", "-c2", "--config", *arguments(1)]
    done = subprocess.run(local, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = project / run.parent
    wanted = result(folder)
    folder.rename(tmp_path / "on one node")

    snakemake = Snakemake(project, str(run), config=arguments(2), impatient=True)
    other = wait_until(lambda: on_the_other_node(folder), "the process on the other node", limit=200)
    nodes = {other.environ()["SLURMD_NODENAME"], other.environ()["MASTER_ADDR"]}
    assert nodes & {"gpu01", "gpu02"}
    other.kill()
    begun = time.monotonic()
    snakemake.end(limit=300)
    seconds = time.monotonic() - begun
    ends = [event for event in Journal(folder).events() if event["event"] == "end"]
    assert [event["how"] for event in ends] == ["failed", "completed"]
    words = "process 2 of 2: killed by SIGKILL; out of host memory?"
    assert words in ends[0]["reason"] and "resuming after step" in (folder / "trainer.log").read_text()
    assert result(folder) == wanted
    memory = json.loads((folder / "training.json").read_text())["memory"]
    assert len(memory["ranks"]) == 2
    jobs = [job for job in accounting() if job["Comment"].startswith("rule_train_run")]
    assert [job["State"] for job in jobs] == ["FAILED", "COMPLETED"]
    assert all(job["NodeList"] == "gpu[01-02]" and "gres/gpu=2" in job["AllocTRES"].split(",") for job in jobs)
    assert queue() == []
    attempts = json.loads((folder / "training.json").read_text())["attempts"]
    row = {"seen": f"“error: {words}”; the job is sent again", "seconds": seconds, "same": "bit for bit, as on one node"}
    survived("kill -9 of a rank on another node", "slurm", repeated=attempts["repeated_steps"], **row)
