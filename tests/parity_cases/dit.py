"""Our DiT on the stored cases: the training loss and its gradients. Names are those of diffusers."""

from typing import Any

import torch

from ablation.systems.dit.settings import SystemSettings
from ablation.systems.dit.system import System
from ablation.systems.dit.weights import EMBEDDER, OURS, renamed
from parity_cases import Tensors, gradients
from parity_cases.steps import runs, steps


def dit_grad(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The loss, its parts, and the gradient of every parameter."""
    system = System(SystemSettings.model_validate(content(config)))
    model = system.build().train()
    load(model, weights)
    with torch.enable_grad():
        found = system.objective(model, inputs, "noise")
        found.loss.backward()
    named = {f"grad.{theirs(name.removeprefix('grad.'))}": gradient for name, gradient in gradients(model).items()}
    return {"loss": found.loss, **found.parts, **named}


def dit_steps(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The steps of every strategy, with the average of the weights."""
    axes = {name: config[name] for name in ("batch", "accumulation")} | {"strategy": list(config["lr"])}
    sweep = axes | {"precision": "fp32", "training.ema": config["training"]["ema"], "seed": 0}
    changes = {key: value for key, value in content(config).items() if key in ("data", "model")}
    found = runs("dit-images", config, sweep=sweep, include=[], baseline={"strategy": axes["strategy"][0]}, **changes)
    return {
        name: value
        for run in found
        for name, value in steps(run, System(run.settings), renamed(weights, "the case"), inputs).items()
    }


def content(config: dict[str, Any]) -> dict[str, Any]:
    """What a case says of the run's settings."""
    data = {"condition": config["condition"], "size": config["architecture"]["latent_size"] * 8}
    return {"system": "dit", "training": {"steps": 1}, "data": data, "model": {"architecture": config["architecture"]}}


def load(model: torch.nn.Module, weights: Tensors) -> None:
    """Fill ``model`` with a case's weights; all but the computed table of positions must be there."""
    missing, unexpected = model.load_state_dict(renamed(weights, "the case"), strict=False)
    assert [name for name in missing if "pos_embed.pos_embed" not in name] == unexpected == []


def theirs(name: str) -> str:
    """Our name of a parameter -> that of diffusers, whose first block stands for all that repeat the embedder."""
    first = f"transformer_blocks.0{EMBEDDER}"
    return name.removeprefix(OURS) if name.startswith(OURS) else first + name.removeprefix("embedder.")
