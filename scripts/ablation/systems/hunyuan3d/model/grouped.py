"""Linear layers of several experts in one product: rows are grouped by expert, and no shape depends on the groups' sizes.

``torch.nn.functional.grouped_mm`` computes the product on CPU and GPU, but describes its shapes (for fake and meta tensors)
only in bf16, and has no bias; hence the operator and the function here. PyTorch's kernel for it, which knows the groups' ends
on the device alone, is for bf16 on Hopper and later; elsewhere on a GPU PyTorch itself fetches the ends and loops.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

ALIGNMENT = 16  # rows; every group begins at a multiple, as kernels for half precision ask for
WIDTHS = 8  # widths of layers must be multiples: 16 bytes in half precision
TYPES = (torch.float32, torch.bfloat16, torch.float16)


class Groups(NamedTuple):
    """Rows sorted by expert, each group padded to a multiple of :data:`ALIGNMENT`."""

    rows: int
    """Rows with all padding: known from the number of rows and experts alone."""
    places: Tensor
    """[R], int64: where each of the R rows goes."""
    ends: Tensor
    """[E], int32: the end of each group; the last group takes all that is left."""
    owners: Tensor
    """[rows], int64: the expert of each place."""


def group(experts: Tensor, count: int) -> Groups:
    """``experts`` [R], int64, below ``count`` -> their groups, rows of one expert in their order."""
    numbers = torch.arange(count, device=experts.device)
    member = (experts[:, None] == numbers).long()  # [R, E]
    rank = member.cumsum(dim=0).gather(1, experts[:, None])[:, 0] - 1
    padded = (member.sum(dim=0) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    ends = padded.cumsum(dim=0)
    rows = (len(experts) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT + count * ALIGNMENT
    places = (ends - padded).index_select(0, experts) + rank
    ends = torch.where(numbers == count - 1, rows, ends)
    owners = (torch.arange(rows, device=experts.device)[:, None] >= ends).sum(dim=1)
    return Groups(rows, places, ends.int(), owners)


def groupable(layers: Iterable[nn.Module]) -> bool:
    """Whether :func:`grouped_linear` can stand for the layers' own forward passes: nothing took their place, they fit.

    A layer whose weight is held in few bits does: it makes it when it is asked for.
    """
    return all(
        (_quantised(layer) or _whole(layer)) and layer.in_features % WIDTHS == layer.out_features % WIDTHS == 0
        for layer in layers
    )


def grouped_linear(x: Tensor, groups: Groups, layers: Sequence[nn.Linear]) -> Tensor:
    """Rows ``x`` [rows, in] through the layer of their group -> [rows, out], in :func:`compute_type`."""
    x = x.to(compute_type(x.device.type, layers[0]))
    weights = [None if _quantised(layer) else layer.weight for layer in layers]
    return _GroupedLinear.apply(x, groups.ends, groups.owners, layers, *weights, *(layer.bias for layer in layers))


def _quantised(layer: nn.Module) -> bool:
    return hasattr(layer, "quantised")


def _whole(layer: nn.Module) -> bool:
    """A plain layer with its weight, of a fitting type, on its device: one in host memory is no parameter."""
    return type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter) and layer.weight.dtype in TYPES


def compute_type(device: str, layer: nn.Module) -> torch.dtype:
    """What this linear layer would compute in: autocast's type, else the weight's."""
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return layer.kind if _quantised(layer) else layer.weight.dtype


class _GroupedLinear(torch.autograd.Function):
    """Keeps the layers' own weights for the backward pass, not the copy that the product is taken with."""

    @staticmethod
    def forward(
        ctx, x: Tensor, ends: Tensor, owners: Tensor, layers: Sequence[nn.Module], *parameters: Tensor | None
    ) -> Tensor:
        weights, biases = parameters[: len(layers)], parameters[len(layers) :]
        trained = any(ctx.needs_input_grad[4:])
        ctx.save_for_backward(x if trained else None, ends, owners, *weights)
        ctx.layers, ctx.types = layers, [None if parameter is None else parameter.dtype for parameter in parameters]
        out = torch.ops.ablation.grouped_mm(x, _weights(layers, weights, x.dtype).transpose(1, 2), ends)
        return out.add_(_stacked(biases, x.dtype).index_select(0, owners))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, ends, owners, *weights = ctx.saved_tensors
        gradient, count = gradient.contiguous(), len(weights)
        needed = ctx.needs_input_grad
        of_x, of_weights, of_biases = None, [None] * count, [None] * count
        if needed[0]:
            of_x = torch.ops.ablation.grouped_mm(gradient, _weights(ctx.layers, weights, gradient.dtype), ends)
        if any(needed[4 : 4 + count]):
            of_weights = torch.ops.ablation.grouped_mm(gradient.t(), x, ends).unbind()
        if any(needed[4 + count :]):
            sums = gradient.new_zeros(count, gradient.shape[1], dtype=torch.float32)
            of_biases = sums.index_add(0, owners, gradient.float()).unbind()
        of_parameters = [
            value.to(dtype) if need else None
            for value, dtype, need in zip([*of_weights, *of_biases], ctx.types, needed[4:], strict=True)
        ]
        return of_x, None, None, None, *of_parameters


def _weights(layers: Sequence[nn.Module], weights: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
    """[E, out, in]; those of layers that hold them in few bits are made one at a time."""
    if weights[0] is not None:
        return _stacked(weights, dtype)
    first = layers[0].made(dtype)
    stacked = first.new_empty(len(layers), *first.shape)
    stacked[0] = first
    for place, layer in zip(stacked[1:], layers[1:], strict=True):
        place.copy_(layer.made(dtype))
    return stacked


def _stacked(parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.stack([parameter.to(dtype) for parameter in parameters])


@torch.library.custom_op("ablation::grouped_mm", mutates_args=())
def grouped_mm(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    """``a`` [R, K] with ``b`` [E, K, N] -> [R, N], or ``a`` [M, R] with ``b`` [R, N] -> [E, M, N]; ``ends`` [E] cuts R."""
    return F.grouped_mm(a, b, offs=ends)


@grouped_mm.register_fake
def _(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[2]) if b.dim() == 3 else (len(ends), a.shape[0], b.shape[1]))


@register_flop_formula(torch.ops.ablation.grouped_mm)
def _flops(a: torch.Size, b: torch.Size, ends: torch.Size, *_args, **_kwargs) -> int:
    return 2 * a[0] * a[1] * b[-1]
