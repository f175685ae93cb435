"""The training step: one function for the trainer and for whoever wants to know what a step costs.

It logs nothing and reads no value back from the device.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ablation.systems.base import System

Mark = Callable[[str], None]


def training_step(
    system: System,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    batches: Iterable[dict[str, Tensor]],
    accumulation: int,
    clip: float | None,
    mark: Mark,
) -> dict[str, Tensor]:
    """One optimizer step over ``accumulation`` batches. ``mark`` is told the phase that begins.

    Returns scalars on the device: ``loss``, the parts of every objective, and ``grad_norm``, the norm before clipping.
    """
    sums: dict[str, Tensor] = {}
    mark("forward")  # which begins with the first batch on its way to the device
    for number, batch in enumerate(batches, start=1):
        with nullcontext() if number == accumulation else accelerator.no_sync(model):
            for name, value in _forward_backward(system, model, accelerator, batch, 1 / accumulation, mark).items():
                sums[name] = sums[name] + value if name in sums else value
    mark("optimizer")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norm = _clip(accelerator, parameters, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**sums, "grad_norm": norm}


def _forward_backward(system, model, accelerator, batch, share: float, mark: Mark) -> dict[str, Tensor]:
    """Every objective of a batch, forward and backward, one after the other; values weighted by ``share``."""
    values: dict[str, Tensor] = {}
    for objective in system.objectives(model, batch):
        mark("backward")
        accelerator.backward(objective.loss * share)
        values["loss"] = values.get("loss", 0) + objective.loss.detach() * share
        values.update({name: part * share for name, part in objective.parts.items()})
        mark("forward")
    return values


def _clip(accelerator: Accelerator, parameters: Sequence[nn.Parameter], clip: float | None) -> Tensor:
    """The gradients' norm, after which they are no longer than ``clip``."""
    return accelerator.clip_grad_norm_(parameters, torch.inf if clip is None else clip)
