"""Frozen weights in 8 or 4 bits (Dettmers et al. 2023, "QLoRA"): linear layers that make their weight anew at each use."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablation.settings import Precision
from ablation.study import FrozenWeights
from ablation.training.bits import EVEN, operators
from ablation.training.precision import COMPUTE, inside

BLOCK = 64  # values that share a scale, as in QLoRA


class QuantisedLinear(nn.Module):
    """A linear layer whose weight is held as codes and a scale for each block, and used in the type ``kind``.

    ``int8``: even steps up to the largest of a block, 8.5 bits a weight. ``nf4``: quantiles of the normal distribution, 4.5 bits.
    """

    def __init__(self, layer: nn.Linear, form: FrozenWeights, kind: torch.dtype):
        super().__init__()
        self.in_features, self.out_features, self.form, self.kind = layer.in_features, layer.out_features, form, kind
        self.bias, self.quantised = layer.bias, layer.weight.numel()
        weight = layer.weight.detach()
        if form == "int8":
            self.register_buffer("steps", EVEN.clone(), persistent=False)
            codes, scales = operators.quantize_blockwise(weight, self.steps.to(weight.device), BLOCK)
        else:
            codes, scales = operators.quantize_4bit(weight, BLOCK, form, torch.uint8)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    @property
    def weight(self) -> Tensor:
        """[out, in], made anew, in the type that the layer computes in."""
        return self.made(self.kind)

    def made(self, kind: torch.dtype) -> Tensor:
        """The weight [out, in] in the type ``kind``."""
        if self.form == "int8":
            return operators.dequantize_blockwise(self.codes, self.scales, self.steps, BLOCK, kind)
        return operators.dequantize_4bit(self.codes, self.scales, BLOCK, self.form, (self.out_features, self.in_features), kind)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., in] -> [..., out]."""
        device = x.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.kind
        return _Product.apply(x.to(kind), self)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.form}"


class _Product(torch.autograd.Function):
    """Keeps the codes for the backward pass, which the layer has anyway, and no weight."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.made(x.dtype), layer.bias if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.made(gradient.dtype), None


def quantise_frozen(model: nn.Module, form: FrozenWeights, precision: Precision, fp32_modules: Sequence[str]) -> None:
    """Hold the linear layers that are not trained in few bits, except those of ``fp32_modules`` and of an odd width.

    (Two codes of 4 bits share a byte; bitsandbytes compiles what an odd width takes on a CPU, when it is first asked for.)
    """
    for name, layer in list(model.named_modules()):
        fits = type(layer) is nn.Linear and layer.in_features % 2 == 0
        if fits and not layer.weight.requires_grad and not inside(name, fp32_modules):
            model.set_submodule(name, QuantisedLinear(layer, form, COMPUTE[precision]))
