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
    """Whether :func:`grouped_linear` can stand for the layers' own forward passes: nothing took their place, they fit."""
    return all(
        type(layer) is nn.Linear
        and isinstance(layer.weight, nn.Parameter)  # not in host memory
        and layer.weight.dtype in TYPES
        and layer.in_features % WIDTHS == layer.out_features % WIDTHS == 0
        for layer in layers
    )


def grouped_linear(x: Tensor, groups: Groups, layers: Sequence[nn.Linear]) -> Tensor:
    """Rows ``x`` [rows, in] through the layer of their group -> [rows, out], in :func:`compute_type`."""
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    x = x.to(compute_type(x.device.type, weights[0]))
    return _GroupedLinear.apply(x, groups.ends, groups.owners, *weights, *biases)


def compute_type(device: str, weight: Tensor) -> torch.dtype:
    """What a linear layer of this weight would compute in: autocast's type, else the weight's."""
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else weight.dtype


class _GroupedLinear(torch.autograd.Function):
    """Keeps the layers' own weights for the backward pass, not the copy that the product is taken with."""

    @staticmethod
    def forward(ctx, x: Tensor, ends: Tensor, owners: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        trained = any(ctx.needs_input_grad[3:])
        ctx.save_for_backward(x if trained else None, ends, owners, *weights)
        ctx.types = [parameter.dtype for parameter in parameters]
        out = torch.ops.ablation.grouped_mm(x, _stacked(weights, x.dtype).transpose(1, 2), ends)
        return out.add_(_stacked(biases, x.dtype).index_select(0, owners))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, ends, owners, *weights = ctx.saved_tensors
        gradient, count = gradient.contiguous(), len(weights)
        needed = ctx.needs_input_grad
        of_x, of_weights, of_biases = None, [None] * count, [None] * count
        if needed[0]:
            of_x = torch.ops.ablation.grouped_mm(gradient, _stacked(weights, gradient.dtype), ends)
        if any(needed[3 : 3 + count]):
            of_weights = torch.ops.ablation.grouped_mm(gradient.t(), x, ends).unbind()
        if any(needed[3 + count :]):
            sums = gradient.new_zeros(count, gradient.shape[1], dtype=torch.float32)
            of_biases = sums.index_add(0, owners, gradient.float()).unbind()
        of_parameters = [
            value.to(dtype) if need else None
            for value, dtype, need in zip([*of_weights, *of_biases], ctx.types, needed[3:], strict=True)
        ]
        return of_x, None, None, *of_parameters


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
