"""The workflow on a machine with one pretended GPU: runs share it where the study allows, and are the same as one by one."""

import json

import pandas as pd
from test_faults import outcome
from workflow import TWO_SCENES, copy_project, jobs, snakemake

from ablation import gpus
from ablation.attempts import Journal

STUDY = [
    "studies=vggt-eth3d",
    TWO_SCENES,
    "training={steps: 3}",
    "sweep={strategy: A, rank: 4, seed: [0, 1]}",
]
FOLDER = "results/demo/vggt-eth3d"
TABLE = f"{FOLDER}/runs.parquet"


def on_one_gpu(project, *arguments, pack):
    return snakemake(project, TABLE, *arguments, config=[*STUDY, f"compute={{pack: {pack}, threads: 1}}"], gpus="0")


def spans(runs):
    """When each run was trained."""
    events = [Journal(run).events() for run in sorted(runs.iterdir())]
    return [(found[0]["time"], found[-1]["time"]) for found in events]


def result(run):
    """What a run trained and measured."""
    found = json.loads((run / "metrics.json").read_text())
    return *outcome(run), *(found[name] for name in ("metrics", "items", "notes"))


def test_runs_that_share_a_card_are_those_that_had_it_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv(gpus.FOLDER, str(tmp_path / "leases"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    project = copy_project(tmp_path / "project")
    done = on_one_gpu(project, pack=2)
    assert done.returncode == 0, done.stderr[-3000:]
    table, runs, together = pd.read_parquet(project / TABLE), project / FOLDER / "runs", tmp_path / "together"
    (began, ended), (began_too, ended_too) = spans(runs)
    assert max(began, began_too) < min(ended, ended_too), "not at the same time"
    assert list(table["time.packed"]) == [2, 2]

    again = on_one_gpu(project, "-n", pack=1)
    assert "train_run" not in jobs(again) and again.returncode == 0, again.stderr[-3000:]
    runs.rename(together)
    (project / TABLE).unlink()
    done = on_one_gpu(project, pack=1)
    assert done.returncode == 0, done.stderr[-3000:]
    (_, ended), (began, _) = sorted(spans(runs))
    assert ended <= began
    for run in sorted(together.iterdir()):
        assert result(run) == result(runs / run.name)
    assert "time.packed" not in pd.read_parquet(project / TABLE)
