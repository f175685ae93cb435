"""Gradient checkpointing: which modules forget their activations in the forward pass and compute them again in the backward."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ablation.ending import is_ending


def reached(units: Sequence[nn.Module], model: nn.Module) -> list[nn.Module]:
    """Those of ``units``, in the order of the forward pass, that gradients go through: from the first that trains anything on.

    Where ``model`` trains something outside of them, which may come before any: all.
    """
    within = {parameter for unit in units for parameter in unit.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not within.issuperset(trained):
        return [*units]
    first = next((i for i, unit in enumerate(units) if any(p.requires_grad for p in unit.parameters())), len(units))
    return [*units[first:]]


def chosen(units: Sequence[nn.Module], how: bool | int) -> Sequence[nn.Module]:
    """The last ``how`` of ``units``, all of them (True), or none (False).

    The last ones first: a dense head, at the end, holds more activations than any block, for less work.
    """
    count = len(units) if how is True else min(int(how), len(units))
    return units[len(units) - count :]


def recompute(units: Sequence[nn.Module]) -> None:
    """Have the activations of ``units`` recomputed in the backward pass, but for calls that end the forward pass."""
    for unit in units:
        unit.forward = partial(_recomputed, unit.forward)


def _recomputed(forward: Callable, *args: Any, **kwargs: Any) -> Any:
    if is_ending() or not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
