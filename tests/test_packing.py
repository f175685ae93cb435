"""Runs that share a card, which is pretended: two at a time, each within its part, and what they learn is the same."""

import json
import os
import time
from dataclasses import replace

import launch
import pytest
import torch
from conftest import ROOT
from small_vggt import job, prepare, run_of
from test_faults import longer, outcome

from ablation.attempts import Journal
from ablation.files import write_csv
from ablation.gpus import FOLDER, lease_gpus
from ablation.hardware import load_card
from ablation.packing import predicted_gib, share_mib, share_of
from ablation.systems.vggt.system import System
from ablation.yamlfile import dump_yaml, load_yaml

CARD = 24_000  # MiB


@pytest.fixture
def root(scene_root, vggt, tmp_path, monkeypatch):
    """A machine with one GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(FOLDER, str(tmp_path / "leases"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return prepare(scene_root, vggt, tmp_path)


def full_evaluation():
    """In the process of a test's program alone, and not in what that becomes."""

    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    System.evaluate = fail


def packed(run, pack):
    """The run, where ``pack`` may share a card."""
    compute = run.settings.compute.model_copy(update={"pack": pack})
    return replace(run, settings=run.settings.model_copy(update={"compute": compute}))


def planned(path, gib, *runs, verdict="fits"):
    """A plan in which each of ``runs`` needs ``gib``."""
    write_csv(path, [{"run": run.id, "predicted_gib": gib, "verdict": verdict} for run in runs])
    return path


@pytest.mark.parametrize(
    ("pack", "predicted", "axes", "part"),
    [
        (1, 2.0, {}, CARD),
        (2, 2.0, {}, CARD // 2),  # at most two, each with its half
        (3, 2.0, {}, CARD // 3),
        (16, 2.0, {}, 2112),  # 2 GiB and what predictions may be off
        (16, None, {}, CARD),
        (2, 22.0, {}, 23_227),
        (2, 23.0, {}, CARD),
        (2, 30.0, {}, CARD),  # as on a card that is smaller than the study's
        (2, 2.0, {"gpus": 2}, CARD),
        (2, 2.0, {"how": {"distributed": "zero2"}}, CARD),
    ],
)
def test_the_part_of_a_run(tmp_path, tiny, pack, predicted, axes, part):
    assert share_mib(packed(run_of(tmp_path, tiny, **axes), pack), predicted, CARD) == part


def test_what_may_not_fit_or_is_not_planned_has_its_card_for_itself(tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    run, card = packed(run_of(tmp_path, tiny), 2), load_card("rtx4090", ROOT / "config/hardware")
    assert share_of(run, planned(tmp_path / "plan.csv", 2.0, run), card) == (12103, 24207)
    assert share_of(run, planned(tmp_path / "tight.csv", 2.0, run, verdict="tight"), card) is None
    assert share_of(run, tmp_path / "none.csv", card) is None and share_of(run, None, card) is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # an allocation, in which several jobs may be
    assert share_of(run, tmp_path / "plan.csv", card) == (12103, 24207)
    planned(tmp_path / "plan.csv", 3.0, run)
    os.utime(tmp_path / "plan.csv", (1, 1))
    assert predicted_gib(tmp_path / "plan.csv", run.id) == 3.0, "a plan that was made anew is read anew"


def test_two_runs_share_a_card_and_learn_what_they_learn_alone(root, tiny):
    runs = [packed(longer(run_of(root, tiny, dropout=0.2, seed=seed), steps=16), 2) for seed in (0, 1)]
    plan = planned(root / "plan.csv", 2.0, *runs)
    with lease_gpus(1):  # so that both begin when this one ends
        together = [launch.start(*job(run, root, f"packed-{i}"), plan=plan) for i, run in enumerate(runs)]
        queue = root / "leases"
        while sum('"waits": true' in path.read_text() for path in queue.glob("member-*")) < 2:
            time.sleep(0.02)
    for process in together:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    events = [Journal(root / f"packed-{i}").events() for i in (0, 1)]
    assert max(found[0]["time"] for found in events) < min(found[-1]["time"] for found in events), "not at the same time"
    for i, run in enumerate(runs):
        done = launch.train(*job(run, root, f"alone-{i}"))
        assert done.returncode == 0, done.stderr
        assert outcome(root / f"packed-{i}") == outcome(root / f"alone-{i}")
        assert launch.record(root / f"packed-{i}")["time"]["packed"] == 2 and events[i][-1]["packed"] == 2
        assert "packed" not in launch.record(root / f"alone-{i}")["time"]


def test_a_run_whose_part_is_too_small_has_the_whole_card_then(root, tiny):
    """That its part is full is no result: by itself on the card, the run has room."""
    card = load_yaml(ROOT / "config/hardware/rtx4090.yaml")
    (root / "cards").mkdir()
    (root / "cards/rtx4090.yaml").write_text(dump_yaml({**card, "usable_gib": 1.0}))
    run = packed(run_of(root, tiny), 2)
    done = launch.train(*job(run, root, "run"), cards=root / "cards", plan=planned(root / "plan.csv", 0.4, run))
    assert done.returncode == 0, done.stderr
    assert "held to 0 GiB beside other runs" in done.stderr and "its part of the GPU was too small" in done.stderr
    assert [event["how"] for event in Journal(root / "run").events() if event["event"] == "end"] == ["oom", "completed"]
    assert launch.train(*job(run, root, "alone"), cards=root / "cards").returncode == 0
    assert outcome(root / "run") == outcome(root / "alone")
    assert launch.record(root / "run")["memory"]["budget_gib"] == 0.5 and "packed" not in launch.record(root / "run")["time"]


def test_an_evaluation_that_needs_more_than_the_run_s_part_has_the_whole_card(root, tiny):
    run, base = packed(run_of(root, tiny), 2), root / "base.json"
    base.write_text(json.dumps({"metrics": {}, "items": []}))
    how = {"base": base, "plan": planned(root / "plan.csv", 2.0, run)}
    done = launch.train(*job(run, root, "run"), before=full_evaluation, **how)
    assert done.returncode == 0 and "its part of the GPU was too small" in done.stderr, done.stderr
    assert [event["event"] for event in Journal(root / "run").events()] == ["start", "train", "end"], "trained once"
    assert json.loads((root / "run/metrics.json").read_text())["metrics"]["depth_mae"] > 0
