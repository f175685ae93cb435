"""Compiling by region: which modules, and that a step comes to the same numbers."""

from functools import partialmethod

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT
from torch import nn

from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems import load_system
from ablation.training.accelerator import make_accelerator
from ablation.training.model import fresh_for_training, repeated_blocks
from ablation.training.randomness import seed_everything
from ablation.training.step import TrainingStep

CPU = torch.device("cpu")
ROUNDING = 1e-5  # relative: a compiled block adds in another order


def run_of(study, strategy, **training):
    content = {"scale": "demo", "training": training}
    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", content), study)
    return next(run for run in runs if run.axes["strategy"] == strategy and run.axes["precision"] == "fp32")


@pytest.mark.parametrize(
    "study, strategy, kinds",
    [
        ("vggt-eth3d", "A", {"Block"}),
        ("vggt-eth3d", "C", {"Block"}),  # with adapters in them; not the adapted convolutions of the head
        ("dit-images", "full", {"BasicTransformerBlock"}),
        ("rdt-batch", "lora", {"Block"}),
    ],
)
def test_the_blocks_are_compiled_and_no_single_layer(study, strategy, kinds):
    run = run_of(study, strategy)
    system = load_system(run.settings)
    found = list(repeated_blocks(fresh_for_training(system, run, CPU)))
    assert {type(block).__name__ for block in found} == kinds and len(found) == len(set(map(id, found)))


def test_a_compiled_step_equals_the_plain_one(monkeypatch):
    """Traced, differentiated and run by PyTorch's compiler, but for the code that C++ would be made of: that takes minutes."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    found = []
    for compiled in (False, True):
        run = run_of("dit-images", "full", compile=compiled)
        system = load_system(run.settings)
        seed_everything(0)
        model = fresh_for_training(system, run, CPU)
        assert {block._compiled_call_impl is not None for block in repeated_blocks(model)} == {compiled}
        AcceleratorState._reset_state(True)
        step = TrainingStep(run, system, model, make_accelerator("fp32", CPU))
        seed_everything(1)
        batch = system.fake_batch(2)
        found.append([step([batch], 1, lambda phase: None) for _ in range(3)])
    AcceleratorState._reset_state(True)
    torch._dynamo.reset()
    for plain, compiled in zip(*found, strict=True):
        for name in plain:
            torch.testing.assert_close(compiled[name], plain[name], rtol=ROUNDING, atol=0)
