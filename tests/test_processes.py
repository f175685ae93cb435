"""Several processes train one model as one would, and resume, fail and run out of memory together."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

from ablation.study import study_model
from ablation.sweep import Run, expand
from ablation.systems.vggt.data.scene import prepare_scene
from ablation.vram.budget import CONTEXT_GIB
from ablation.yamlfile import dump_yaml, load_yaml


@pytest.fixture
def root(scene_root, vggt, tmp_path) -> Path:
    """A folder with weights and two prepared scenes."""
    save_file(vggt.state_dict(), tmp_path / "weights.safetensors")
    for name in ("hall", "yard"):
        how = {"size": (28, 42), "fit": "crop", "depth_range": (0.1, 100), "dense": False}
        prepare_scene(scene_root, name, how, tmp_path / name)
    return tmp_path


def run_of(root: Path, tiny, dropout: float = 0.0, **axes) -> Run:
    """Four steps of LoRA on a tiny VGGT, with a loss that is a mean over samples."""
    content = {
        "system": "vggt",
        "data": {"scenes": ["hall", "yard"], "resolution": [28, 42], "frames": 3, "target": "laser", "split": {"by": "scene"}},
        "model": {"weights": str(root / "weights.safetensors"), "architecture": tiny.model_dump(mode="json")},
        "training": {"steps": 4, "checkpoint_every": 2},
        "lora": {"dropout": dropout},
        "loss": {"camera": 1.0, "conf": 0.0, "reg": 0.0, "grad": 0.0},
        "compute": {"threads": 1, "workers": 0},
        "strategies": {"A": {"train": {"lora": ["camera_head", "aggregator.global_blocks.2-3"]}, "lr": 1e-3}},
        "sweep": {"strategy": "A", "rank": 4, "precision": "fp32", "seed": 0, **axes},
    }
    return expand(study_model("vggt").model_validate(content), "tiny")[0]


def train(run: Run, root: Path, folder: str, cards: Path = ROOT / "config/hardware") -> subprocess.CompletedProcess:
    """The program, as the workflow's rule calls it."""
    (root / f"{folder}.yaml").write_text(dump_yaml(run.training_view))
    command = [
        *(sys.executable, ROOT / "scripts/train_run.py", "--run", root / f"{folder}.yaml", "--folder", root / folder),
        *("--weights", f"weights={root / 'weights.safetensors'}", "--data", root / "hall", root / "yard"),
        *("--cards", cards, "--device", "cpu"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def result(root: Path, folder: str) -> tuple[dict, list[float], dict[str, torch.Tensor]]:
    """The record, the losses and the adapter of a run."""
    rows = list(csv.DictReader((root / folder / "history.csv").open()))
    adapter = load_file(root / folder / "adapter/adapter_model.safetensors")
    return json.loads((root / folder / "training.json").read_text()), [float(row["loss"]) for row in rows], adapter


def test_two_processes_take_the_steps_of_one(root, tiny):
    """One batch of four, or two processes that accumulate two batches of one: equal up to the rounding of fp32 sums."""
    for folder, axes in {"alone": {"batch": 4}, "both": {"batch": 1, "accumulation": 2, "gpus": 2}}.items():
        done = train(run_of(root, tiny, **axes), root, folder)
        assert done.returncode == 0, done.stderr
    (alone, losses, adapter), (both, their_losses, theirs) = result(root, "alone"), result(root, "both")
    assert alone["outcome"] == both["outcome"] == "completed" and both["steps"] == 4
    assert losses == pytest.approx(their_losses, rel=1e-5)
    for name, value in adapter.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-3)
    assert (root / "both/trainer.log").read_text().count("training A-") == 1


def test_two_processes_resume_bit_for_bit(root, tiny):
    """With dropout, which is random in each process. The state of step 2 is there: a second start takes it up."""
    run = run_of(root, tiny, dropout=0.2, gpus=2)
    assert train(run, root, "run").returncode == 0
    _, losses, adapter = result(root, "run")
    again = train(run, root, "run")
    assert again.returncode == 0 and "resuming after step 2" in again.stderr
    _, their_losses, theirs = result(root, "run")
    assert losses == their_losses and all(torch.equal(value, theirs[name]) for name, value in adapter.items())


def test_out_of_memory_in_any_process_is_the_run_s_result(root, tiny):
    run = run_of(root, tiny, gpus=2)
    assert train(run, root, "run").returncode == 0
    phases = {name: peak["allocated_gib"] for name, peak in result(root, "run")[0]["memory"]["phases"].items()}
    (root / "cards").mkdir()
    card = load_yaml(ROOT / "config/hardware/rtx4090.yaml")
    budget = (phases["optimizer"] + phases["backward"]) / 2
    (root / "cards/small.yaml").write_text(dump_yaml({**card, "usable_gib": budget + CONTEXT_GIB}))
    run = replace(run, settings=run.settings.model_copy(update={"hardware": "small"}))
    done = train(run, root, "run", root / "cards")
    assert done.returncode == 0, done.stderr
    record = json.loads((root / "run/training.json").read_text())
    assert record["outcome"] == "oom" and record["oom"]["phase"] in ("forward", "backward")
    assert not (root / "run/adapter").exists()


def test_a_process_that_fails_fails_the_run(root, tiny):
    save_file({"nothing": torch.zeros(1)}, root / "weights.safetensors")
    done = train(run_of(root, tiny, gpus=2), root, "run")
    assert done.returncode == 2 and "nothing" in done.stderr and not (root / "run/training.json").exists()
    assert done.stderr.splitlines()[-1].startswith("error: a process of 2 failed") and "Traceback" not in done.stderr
