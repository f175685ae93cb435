"""Number formats: what is held in which."""

from collections.abc import Sequence

import torch
from torch import nn

from ablation.settings import Precision

COMPUTE = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cast_frozen(model: nn.Module, precision: Precision, fp32_modules: Sequence[str]) -> None:
    """Hold the weights that are not trained in the compute type, except those of ``fp32_modules``."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.is_floating_point() and not inside(name, fp32_modules):
            parameter.data = parameter.data.to(COMPUTE[precision])


def cast_trained(model: nn.Module, fp32_modules: Sequence[str]) -> None:
    """Hold the weights that are trained in bf16, except those of ``fp32_modules``."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not inside(name, fp32_modules):
            parameter.data = parameter.data.to(torch.bfloat16)


def inside(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a module or parameter of a model, which PEFT may have wrapped, lies below one of ``prefixes``."""
    name = name.removeprefix("base_model.model.")  # PEFT's wrapping
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
