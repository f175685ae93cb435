"""The trainer's step beside the plainest loop: the same losses, gradients and weights, bit for bit."""

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT
from torch import nn

from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems import load_system
from ablation.training.accelerator import make_accelerator
from ablation.training.model import fresh_for_training
from ablation.training.randomness import seed_everything
from ablation.training.step import TrainingStep

CPU = torch.device("cpu")
CHOSEN = {"vggt-eth3d": "C", "hunyuan3d-4090": "B", "rdt-batch": "lora", "kolors-3x4090": "A", "dit-images": "full"}


@pytest.fixture
def network():
    """Builds the same network again and again: ``network(system, run)``."""

    def build(system, run):
        seed_everything(0)
        return fresh_for_training(system, run, CPU)

    yield build
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("study", CHOSEN)
@pytest.mark.parametrize("clip", [0.01, None])
def test_a_step_is_that_of_the_plainest_loop(network, study, clip):
    content = {"scale": "demo", "training": {"clip": clip}}
    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", content), study)
    run = next(run for run in runs if run.axes["strategy"] == CHOSEN[study] and run.axes["precision"] == "fp32")
    system = load_system(run.settings)
    ours = TrainingStep(run, system, network(system, run), make_accelerator("fp32", CPU))
    model, settings = network(system, run), run.settings.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    how = {"betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay, "fused": True}
    optimizer = torch.optim.AdamW(trained, lr=run.strategy.lr, **how)
    for seed in range(2):
        seed_everything(seed)
        batch = system.fake_batch(1)
        seed_everything(seed)  # for dropout
        loss = 0.0
        for name in system.objectives:
            found = system.objective(model, batch, name).loss
            found.backward()
            loss = loss + found.detach()
        norm = nn.utils.clip_grad_norm_(trained, torch.inf if clip is None else clip)
        optimizer.step()
        optimizer.zero_grad()
        seed_everything(seed)
        values = ours([batch], 1, lambda phase: None)
        assert torch.equal(values["loss"], loss) and torch.equal(values["grad_norm"], norm)
    for (name, one), other in zip(model.named_parameters(), ours.model.parameters(), strict=True):
        assert torch.equal(one, other), name
