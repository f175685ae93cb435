"""Our Kolors on the stored cases: the three objectives, their gradients, and the steps of every strategy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed as dist

from ablation.sweep import Run
from ablation.systems.kolors.settings import SystemSettings
from ablation.systems.kolors.system import System
from ablation.vram.sharding import rank
from parity_cases import Tensors, gradients
from parity_cases.steps import runs, steps


def kolors_grad(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """For each objective its loss, and the gradient of every parameter that it trains."""
    system = System(SystemSettings.model_validate({"system": "kolors", "training": {"steps": 1}, **content(config)}))
    model, out = system.build().train(), {}
    model.load_state_dict(weights)
    model.unet.requires_grad_(False)
    model.text_encoder.requires_grad_(False)
    for name in system.objectives:
        with torch.enable_grad():
            loss = system.objective(model, inputs, name).loss
            loss.backward()
        out |= {f"{name}.{key}": value.clone() for key, value in {"loss": loss.detach(), **gradients(model)}.items()}
        model.zero_grad(set_to_none=True)
    return out


def kolors_steps(config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """The steps of every strategy."""
    out: Tensors = {}
    for run in runs("kolors-3x4090", config, **content(config)):
        with _alone(run):
            out |= steps(run, System(run.settings), weights, inputs)
    return out


def content(config: dict[str, Any]) -> dict[str, Any]:
    """What a case says of the run's settings."""
    model = {"architecture": config["architecture"]}
    return {"model": model, "data": config["data"], "objectives": config["objectives"]}


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """As the only one of a group of processes, where the run shares a model among several."""
    if run.strategy.distributed == "ddp":
        yield
        return
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    with patch.dict(os.environ, place), patch.object(rank, "ZERO_BUCKET", 1_000_000):  # of numbers; 1.5 GB in training
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()
