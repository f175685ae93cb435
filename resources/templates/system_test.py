"""The system newsystem as the trainer and the workflow see it."""

from pathlib import Path

import launch
import pytest
import torch
from allocations import peak_of_step
from conftest import ROOT
from safetensors.torch import load_file
from torch.utils.data import default_collate

from ablation.seal import seal
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.systems.base import Draw
from ablation.systems.newsystem import preparation
from ablation.training.recompute import chosen, recompute
from ablation.training.trainer import Trainer
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter
from ablation.vram.replay import allocated_peak
from ablation.vram.step import trace_step_on_cpu

STUDY = ROOT / "config/studies/newsystem.yaml"
CPU = torch.device("cpu")


def first_run(**training) -> Run:
    """The first run of the demo, trained in another way."""
    return expand(load_study(STUDY, {"scale": "demo", "training": training}), "newsystem")[0]


@pytest.fixture(scope="module")
def run() -> Run:
    """Six steps, with a checkpoint and a preview in their middle."""
    return first_run(steps=6, checkpoint_every=3, preview_every=3)


@pytest.fixture(scope="module")
def folders(run, tmp_path_factory) -> list[Path]:
    """Its prepared data."""
    made = []
    for part in run.settings.parts():
        made.append(tmp_path_factory.mktemp(part.name))
        preparation.prepare(part, made[:-1], made[-1])
        seal(made[-1])
    return made


def trainer(run: Run, folders: list[Path], folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(run, load_system(run.settings), {}, folders, folder, CPU, CpuMeter(Budget("any", 1.0, emulated=True)))


def test_a_fake_batch_is_like_a_real_one(run, folders):
    system = load_system(run.settings)
    samples = system.samples(folders, train=True)
    real = default_collate([samples[Draw(0, 0, 0, index)] for index in range(3)])
    shapes = [{name: (x.shape, x.dtype) for name, x in batch.items()} for batch in (system.fake_batch(3), real)]
    assert shapes[0] == shapes[1] and len(samples) + len(system.samples(folders, train=False)) == run.settings.data.waves


def test_the_loss_falls(folders, tmp_path):
    trained = trainer(first_run(steps=30), folders, tmp_path / "run")
    assert trained.train() == "completed"
    trained.finish()
    losses = [row["loss"] for row in trained.history.rows]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_recomputed_activations_change_no_gradient(run):
    system, gradients = load_system(run.settings), []
    torch.manual_seed(0)
    model, batch = system.build().train(), system.fake_batch(3)
    for enabled in (False, True):
        recompute(chosen(system.recomputable(model), enabled))
        model.zero_grad()
        system.objective(model, batch, "error").loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(map(torch.equal, *gradients))


def test_memory_is_predicted_as_the_step_takes_it(run):
    assert allocated_peak(trace_step_on_cpu(run)) == pytest.approx(peak_of_step(run), rel=0.02)


def test_a_run_by_the_program_and_one_that_was_interrupted_end_the_same(run, folders, tmp_path, monkeypatch):
    done = launch.train(run, tmp_path / "whole", {}, folders)
    assert done.returncode == 0 and launch.record(tmp_path / "whole")["outcome"] == "completed", done.stderr
    first = trainer(run, folders, tmp_path / "parts")
    record = first._record

    def until_step_four(step, *rest):
        if step == 4:
            raise KeyboardInterrupt
        record(step, *rest)

    monkeypatch.setattr(first, "_record", until_step_four)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = trainer(run, folders, tmp_path / "parts")
    assert second.start == 3 and second.train() == "completed"
    second.finish()
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_is_judged_on_every_held_out_item(run, folders, tmp_path):
    system = load_system(run.settings)
    found = system.evaluate(system.build().eval().requires_grad_(False), folders, tmp_path, CPU)
    assert set(found.metrics) == {metric.name for metric in run.settings.metrics()}
    assert len(found.items) == len(system.samples(folders, train=False))
    assert sum(item["error"] for item in found.items) / len(found.items) == pytest.approx(found.metrics["error"])
