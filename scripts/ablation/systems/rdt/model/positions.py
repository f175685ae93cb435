"""What RDT's position tables hold before training (Liu et al., ICLR 2025, appendix; they are learnt and in the checkpoint).

All are computed in double precision, sines before cosines, and returned as fp32 [1, tokens, dim].
"""

import torch
from torch import Tensor

BASE = 10000.0


def sequence_table(dim: int, lengths: tuple[int, ...]) -> Tensor:
    """Kinds of tokens one after the other, ``lengths`` of each: one half tells the kind, the other the place within it."""
    half = dim // 2
    kinds = sine_cosine(len(lengths), half)
    parts = [
        torch.cat([kinds[kind].expand(length, -1), sine_cosine(length, half)], dim=-1) for kind, length in enumerate(lengths)
    ]
    return torch.cat(parts)[None].float()


def constant_table(dim: int, length: int) -> Tensor:
    """The first place, ``length`` times: the order of the language tokens is not told."""
    return sine_cosine(1, dim).expand(length, -1)[None].float()


def image_table(dim: int, history: int, cameras: int, patches: int) -> Tensor:
    """Time and camera share the width evenly (one of size 1 takes none); patches of an image are not told apart."""
    sizes = (history, cameras)
    told = [axis for axis, size in enumerate(sizes) if size > 1]
    table = torch.zeros(history, cameras, dim, dtype=torch.float64)
    share = dim // len(told) // 2 * 2 if told else 0
    for place, axis in enumerate(told):
        shape = [1, 1, share]
        shape[axis] = sizes[axis]
        table[..., place * share : (place + 1) * share] = sine_cosine(sizes[axis], share).view(shape)
    return table[:, :, None].expand(-1, -1, patches, -1).flatten(0, 2)[None].float()


def sine_cosine(count: int, dim: int) -> Tensor:
    """Places 0 .. ``count`` - 1 as [count, dim]: sines of all frequencies, then cosines."""
    half = dim // 2
    frequencies = BASE ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
