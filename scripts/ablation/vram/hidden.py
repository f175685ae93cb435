"""Memory that CUDA kernels take for themselves while they run, which no tensor of the step shows. Bytes."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

aten = torch.ops.aten


def _fourier(args: tuple) -> list[int]:
    """cuFFT (``SpectralOps.cpp``): a contiguous copy where the batch dimensions cannot be joined, and
    what the half of a real transform takes before the other is filled in.

    Transforms over the first two dimensions go one dimension at a time, with a buffer between them.
    """
    x, dims = args[0], [dim % args[0].dim() for dim in args[1]]
    complex_bytes = x.numel() * (x.element_size() if x.is_complex() else 2 * x.element_size())
    copy = [] if _joins([d for d in range(x.dim()) if d not in dims], x) else [x.numel() * x.element_size()]
    between = [complex_bytes] if len(dims) > 1 and sorted(dims)[:2] == [0, 1] else []
    half = [] if x.is_complex() or args[-1] is True else [complex_bytes // 2]
    return [*copy, *between, *half]


def _joins(dims: list[int], x: Tensor) -> bool:
    """Whether the dimensions ``dims`` of ``x`` are one in memory, in some order."""
    steps = sorted(((x.stride(d), x.shape[d]) for d in dims if x.shape[d] > 1), reverse=True)
    return all(outer == inner * size for (outer, _), (inner, size) in pairwise(steps))


def _sort(args: tuple) -> list[int]:
    """``segmented sort`` (``SortStable.cu``): keys and indices once more, and cub's alternates of both."""
    x: Tensor = args[0]
    return [x.numel() * (x.element_size() + 8)]


def _product(*operands: int) -> Callable[[Sequence], list[int]]:
    """cuBLAS reads matrices of which one dimension is contiguous; others are copied (``prepare_matrix_for_cublas``)."""

    def copies(args: Sequence) -> list[int]:
        return [args[i].numel() * args[i].element_size() for i in operands if not _readable(args[i])]

    return copies


def _readable(x: Tensor) -> bool:
    (rows, columns), (down, across) = x.shape[-2:], x.stride()[-2:]
    return (across == 1 and down >= max(1, columns)) or (down == 1 and across >= max(1, rows))


HIDDEN: dict[object, Callable[[Sequence], list[int]]] = {
    aten._fft_c2c.default: _fourier,
    aten._fft_r2c.default: _fourier,
    aten._fft_c2r.default: _fourier,
    aten.sort.default: _sort,
    aten.mm.default: _product(0, 1),
    aten.bmm.default: _product(0, 1),
    aten.addmm.default: _product(1, 2),
    aten.baddbmm.default: _product(1, 2),
}
