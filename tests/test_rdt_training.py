"""RDT trained, interrupted, and taken up again."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from small_rdt import STUDY, changes, make_encoders, prepare

from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems import load_system
from ablation.training.trainer import Trainer
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return make_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def prepared(encoders, tmp_path_factory):
    settings = expand(load_study(STUDY, changes(encoders)), "rdt")[0].settings
    return prepare(settings, tmp_path_factory.mktemp("prepared"))


def power_cut():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("strategy", "file"), [("full", "model.safetensors"), ("lora", "adapter/adapter_model.safetensors")])
def test_a_run_that_is_interrupted_ends_the_same(prepared, encoders, tmp_path, strategy, file):
    """With conditions left out, noise and augmentation, which are drawn for each sample of each epoch."""
    training = {"epochs": None, "steps": 6, "checkpoint_every": 3}
    sweep = {"strategy": strategy, "batch": 8, "accumulation": 2, "gpus": 1}
    (run,) = expand(load_study(STUDY, changes(encoders, training=training, sweep=sweep)), "rdt")
    torch.manual_seed(0)
    model = load_system(run.settings).build()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")

    def trainer(folder: Path) -> Trainer:
        AcceleratorState._reset_state(True)
        folder.mkdir(exist_ok=True)
        meter = CpuMeter(Budget("any", 1.0, emulated=True))
        weights, device = {"weights": tmp_path / "weights.safetensors"}, torch.device("cpu")
        return Trainer(run, load_system(run.settings), weights, prepared, folder, device, meter)

    whole = trainer(tmp_path / "whole")
    assert whole.train() == "completed"
    whole.finish()
    first = trainer(tmp_path / "parts")
    record = first._record
    first._record = lambda step, *rest: record(step, *rest) if step < 4 else power_cut()
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = trainer(tmp_path / "parts")
    assert second.start == 3 and second.train() == "completed"
    second.finish()
    one, other = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
