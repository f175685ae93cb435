"""Linear layers of several experts as one: rows are grouped by expert, and no shape depends on the groups' sizes.

Each expert's product is taken with its own weight: stacked, as ``torch.nn.functional.grouped_mm`` wants them, all weights would
be copied at every use. Where a group ends is read on the host, once for the layers of a mixture; on a GPU, which waits for it,
that costs less than the copies.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

OWN = 5  # arguments of the product below before the layers' parameters
TYPES = (torch.float32, torch.bfloat16, torch.float16)


class Groups(NamedTuple):
    """R rows sorted by expert."""

    places: Tensor
    """[R], int64: where each row goes."""
    ends: Tensor
    """[E], int64, on the host: the end of each group."""
    owners: Tensor
    """[R], int64: the expert of each place."""


def group(experts: Tensor, count: int) -> Groups:
    """``experts`` [R], int64, below ``count`` -> their groups, rows of one expert in their order."""
    member = (experts[:, None] == torch.arange(count, device=experts.device)).long()  # [R, E]
    rank = member.cumsum(dim=0).gather(1, experts[:, None])[:, 0] - 1
    sizes = member.sum(dim=0)
    ends = sizes.cumsum(dim=0)
    places = (ends - sizes).index_select(0, experts) + rank
    return Groups(places, torch.ops.ablation.on_host(ends), torch.empty_like(experts).index_copy(0, places, experts))


def groupable(layers: Iterable[nn.Module]) -> bool:
    """Whether :func:`grouped_linear` can stand for the layers' own forward passes: nothing took their place, they fit.

    A layer whose weight is held in few bits does: it makes it when it is asked for.
    """
    return all(_quantised(layer) or _whole(layer) for layer in layers)


def grouped_linear(x: Tensor, groups: Groups, layers: Sequence[nn.Linear], gelu: bool = False) -> Tensor:
    """Rows ``x`` [R, in], of which GELU is taken first or not, through the layer of their group -> [R, out].

    In :func:`compute_type`.
    """
    x = x.to(compute_type(x.device.type, layers[0]))
    weights = [None if _quantised(layer) else layer.weight for layer in layers]
    return _GroupedLinear.apply(x, gelu, groups.ends, groups.owners, layers, *weights, *(layer.bias for layer in layers))


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
    """Keeps the layers' own weights for the backward pass, not a copy that the product is taken with.

    GELU is taken of one group at a time, again in the backward pass, and its gradient takes the place of that of its result: at
    the width of an expert, each whole tensor more would be a step's peak.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, gelu: bool, ends: Tensor, owners: Tensor, layers: Sequence[nn.Module], *parameters: Tensor | None
    ) -> Tensor:
        weights, biases = parameters[: len(layers)], parameters[len(layers) :]
        needed = gelu or any(ctx.needs_input_grad[OWN:])
        ctx.save_for_backward(x if needed else None, ends, owners, *weights)
        ctx.layers, ctx.gelu = layers, gelu
        ctx.types = [None if parameter is None else parameter.dtype for parameter in parameters]
        out = x.new_empty(len(x), layers[0].out_features)
        for number, (layer, weight, bias) in enumerate(zip(layers, weights, biases, strict=True)):
            weight = _in(x.dtype, layer, weight).t()
            torch.ops.ablation.group_mm(out, _taken(x, gelu, ends, number), weight, bias.to(x.dtype), ends, number)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, ends, owners, *weights = ctx.saved_tensors
        gradient, count, needed = gradient.contiguous(), len(weights), ctx.needs_input_grad
        of_x, of_weights, of_biases = None, [None] * count, [None] * count
        if needed[0]:
            of_x = gradient.new_empty(len(gradient), ctx.layers[0].in_features)
            for number, (layer, weight) in enumerate(zip(ctx.layers, weights, strict=True)):
                torch.ops.ablation.group_mm(of_x, gradient, _in(gradient.dtype, layer, weight), None, ends, number)
            if ctx.gelu:
                torch.ops.aten.gelu_backward.grad_input(of_x, x, grad_input=of_x)
        if any(needed[OWN : OWN + count]):
            of_weights = [
                torch.ops.ablation.group_outer(gradient, _taken(x, ctx.gelu, ends, number), ends, number)
                for number in range(count)
            ]
        if any(needed[OWN + count :]):
            sums = gradient.new_zeros(count, gradient.shape[1], dtype=torch.float32)
            of_biases = sums.index_add(0, owners, gradient.float()).unbind()
        of_parameters = [
            value.to(dtype) if need else None
            for value, dtype, need in zip([*of_weights, *of_biases], ctx.types, needed[OWN:], strict=True)
        ]
        return of_x, *[None] * (OWN - 1), *of_parameters


def _taken(x: Tensor, gelu: bool, ends: Tensor, number: int) -> Tensor:
    return torch.ops.ablation.group_gelu(x, ends, number) if gelu else x


def _in(dtype: torch.dtype, layer: nn.Module, weight: Tensor | None) -> Tensor:
    """[out, in]: the layer's weight, made where it holds it in few bits."""
    return layer.made(dtype) if weight is None else weight.to(dtype)


@torch.library.custom_op("ablation::on_host", mutates_args=())
def on_host(x: Tensor) -> Tensor:
    """A copy of ``x`` that is read without waiting."""
    return x.to("cpu", copy=True)


@torch.library.custom_op("ablation::group_gelu", mutates_args=())
def group_gelu(x: Tensor, ends: Tensor, number: int) -> Tensor:
    """GELU of the rows of group ``number`` of ``x`` [R, K]; a trace takes all groups to be alike."""
    return F.gelu(x[_rows(ends, number)])


@torch.library.custom_op("ablation::group_mm", mutates_args=("out",))
def group_mm(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ends: Tensor, number: int) -> None:
    """Into the rows of group ``number`` of ``out`` [R, N]: ``x`` by ``weight`` [K, N], plus ``bias``.

    ``x``: [R, K], or the group's rows alone.
    """
    rows = _rows(ends, number)
    torch.mm(_of_group(x, rows, len(out)), weight, out=out[rows])
    if bias is not None:
        out[rows] += bias


@torch.library.custom_op("ablation::group_outer", mutates_args=())
def group_outer(a: Tensor, b: Tensor, ends: Tensor, number: int) -> Tensor:
    """``a`` [R, M], ``b`` [R, N], or the group's rows alone -> [M, N]: the sum over the rows of group ``number``."""
    rows = _rows(ends, number)
    return torch.mm(a[rows].t(), _of_group(b, rows, len(a)))


def _of_group(x: Tensor, rows: slice, whole: int) -> Tensor:
    return x[rows] if len(x) == whole else x


def _rows(ends: Tensor, number: int) -> slice:
    return slice(int(ends[number - 1]) if number else 0, int(ends[number]))


@on_host.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@group_gelu.register_fake
def _(x: Tensor, ends: Tensor, number: int) -> Tensor:
    return x.new_empty(-(-len(x) // len(ends)), x.shape[1])


@group_mm.register_fake
def _(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, ends: Tensor, number: int) -> None:
    return None


@group_outer.register_fake
def _(a: Tensor, b: Tensor, ends: Tensor, number: int) -> Tensor:
    return a.new_empty(a.shape[1], b.shape[1])


@register_flop_formula(torch.ops.ablation.group_mm)
def _flops(out: torch.Size, x: torch.Size, weight: torch.Size, bias: object, ends: torch.Size, *_args, **_kwargs) -> int:
    return 2 * out[0] * weight[0] * weight[1] // ends[0]  # a group's share of the rows


@register_flop_formula(torch.ops.ablation.group_outer)
def _outer_flops(a: torch.Size, b: torch.Size, ends: torch.Size, *_args, **_kwargs) -> int:
    return 2 * a[0] * a[1] * b[1] // ends[0]
