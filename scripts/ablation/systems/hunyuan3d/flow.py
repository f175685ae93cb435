"""Flow matching as Hunyuan3D-2.1 trains and samples it: noise at time 0, data at time 1, straight lines between them.

Direction and times are the opposite of those of diffusers' scheduler of the same name.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Latents [B, N, C], times [B] and condition [B, L, D] -> velocity [B, N, C]."""


class FlowStep(NamedTuple):
    """A prediction and what it should have been; the loss is a scalar, the others are [B, N, C]."""

    loss: Tensor
    predicted: Tensor
    target: Tensor
    between: Tensor


def flow_step(velocity: Velocity, data: Tensor, noise: Tensor, t: Tensor, condition: Tensor) -> FlowStep:
    """Mean squared error of the velocity at times ``t`` [B] on the lines from ``noise`` to ``data`` [B, N, C].

    The mixtures' balancing term is no part of the value: it enters only the gradients (``model/moe.py``).
    """
    time = t[:, None, None]
    between, target = time * data + (1 - time) * noise, data - noise
    predicted = velocity(between, t, condition)
    loss = (predicted.float() - target.float()).square().mean()
    return FlowStep(loss, predicted, target, between)


def times(steps: int, device: torch.device | None = None) -> Tensor:
    """[steps + 1]: the times of the predictions, from 0 to 1, and 1 once more: with two steps or more, the last is null."""
    exact = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([exact, exact.new_ones(1)]).float().to(device)


@torch.no_grad()
def sample(velocity: Velocity, noise: Tensor, condition: Tensor, steps: int = 50, guidance: float = 5.0) -> Tensor:
    """Euler steps from ``noise`` [B, N, C] to latents, guided: v = v_without + guidance (v_with - v_without)."""
    x, schedule = noise.float(), times(steps, noise.device)
    both = torch.cat([condition, torch.zeros_like(condition)])
    for now, then in pairwise(schedule):
        with_, without = velocity(torch.cat([x, x]), now.expand(2 * len(x)), both).float().chunk(2)
        x = x + (then - now) * (without + guidance * (with_ - without))
    return x
