"""What saves memory in the passes of a step changes no bit of losses and gradients: recomputing, and weights in host memory."""

from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from torch import nn

from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.training.model import for_training

CPU, ADA = torch.device("cpu"), "8.9"
HOST = {  # frozen modules of each system, without a gradient through them and with one
    "vggt-eth3d": ["camera_head", "aggregator", "depth_head"],
    "hunyuan3d-4090": ["vae", "conditioner", "model.blocks.*.attn*", "model.blocks.*.mlp"],
    "kolors-3x4090": ["text_encoder", "unet.down_blocks"],
    "rdt-batch": ["model.blocks.0-1"],
    "dit-images": ["transformer.transformer_blocks.0"],
}


def demo(study: str, **strategy) -> Run:
    """A run of a study's demo, with another way of saving memory."""
    name = {"rdt-batch": "lora", "kolors-3x4090": "A", "dit-images": None}.get(study, "B")
    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", {"scale": "demo", "sweep": {"seed": 0}}), study)
    run = next(run for run in runs if name in (None, run.axes["strategy"])).with_axes(batch=2)
    return replace(run, strategy=run.strategy.model_copy(update={"gradient_checkpointing": False, **strategy}))


def network(run: Run) -> nn.Module:
    torch.manual_seed(0)
    weights = {name: ROOT / path for name, path in run.settings.weight_files().items()}
    return for_training(load_system(run.settings), run, weights, CPU)


def passes(run: Run) -> dict[str, torch.Tensor]:
    """Losses and gradients of two passes of each objective."""
    torch.set_num_threads(1)
    system, model, found = load_system(run.settings), network(run), {}
    for name in system.objectives:
        for number in range(2):
            torch.manual_seed(1 + number)
            loss = system.objective(model, system.fake_batch(2), name).loss
            loss.backward()
            found[f"{name} {number}"] = loss.detach()
    return found | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module", params=HOST)
def plain(request):
    """A study, and what is found without saving memory."""
    return request.param, passes(demo(request.param))


@pytest.mark.parametrize(
    "ways", [{"gradient_checkpointing": 2}, {"gradient_checkpointing": True}, {"host": True}, {"both": True}]
)
def test_losses_and_gradients_are_the_same_bit_for_bit(plain, ways):
    study, expected = plain
    changes = {"gradient_checkpointing": True, "host": True} if "both" in ways else dict(ways)
    if "host" in changes:
        changes["host"] = HOST[study]
    found = passes(demo(study, **changes))
    assert found.keys() == expected.keys() and len(found) > 4
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
