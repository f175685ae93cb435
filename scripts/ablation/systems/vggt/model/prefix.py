"""How far VGGT's aggregator has come with a sequence, and how much of it is frozen.

A state holds all that is left to know of the images, by name: before the first depth their ``patches`` [B, S, N, C]; after
``d`` depths ``tokens.d`` [B, S, P, C], less where ``d`` is the last, and for each depth whose tokens a head needs ``level.i``
[B, S, P, 2C].
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
Size = tuple[int, int]  # height and width of the images

PATCHES = "patches"
TOKENS = "tokens."


def tokens_after(depth: int) -> str:
    """The name of the tokens after ``depth`` depths."""
    return f"{TOKENS}{depth}"


def level(depth: int) -> str:
    """The name of what the heads take from ``depth``."""
    return f"level.{depth}"


def start_of(names: Iterable[str], last: int) -> int:
    """How many depths are behind a state of these ``names``, out of ``last``."""
    if PATCHES in names:
        return 0
    return next((int(name.removeprefix(TOKENS)) for name in names if name.startswith(TOKENS)), last)


def frozen_depths(aggregator: nn.Module) -> int | None:
    """The number of depths below which nothing is trained, trunk included; None where the trunk is trained."""
    if _trained(aggregator.patch_embed):
        return None
    if aggregator.camera_token.requires_grad or aggregator.register_token.requires_grad:
        return 0
    pairs = list(zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True))
    return next((depth for depth, pair in enumerate(pairs) if any(map(_trained, pair))), len(pairs))


def _trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def stacked(states: Iterable[State], count: int) -> State:
    """``count`` states of one sequence each as one; no more than one of them is held beside it."""
    whole: State = {}
    for number, state in enumerate(states):
        if count == 1:
            return state
        for name, value in state.items():
            if number == 0:
                whole[name] = torch.empty((count, *value.shape[1:]), dtype=value.dtype, device=value.device)
            whole[name][number] = value[0]
    return whole
