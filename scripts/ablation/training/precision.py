"""Number formats: what computes in which, and the Accelerate set-up for it."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import GradScalerKwargs, InitProcessGroupKwargs
from torch import nn

from ablation.errors import UserError
from ablation.settings import Precision
from ablation.training.processes import place

COMPUTE = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE = 2.0**14  # the default 2^16 overflows on the first steps of most fine-tuning


def make_accelerator(precision: Precision, device: torch.device) -> Accelerator:
    """Accelerate for one device a process and a precision; autocast and, for fp16, loss scaling come with it."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError("precision tf32 needs a CUDA device (Ampere or later); on a CPU use fp32")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    handlers = [GradScalerKwargs(init_scale=FIRST_SCALE)]
    if device.type == "cpu" and place().count > 1:
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision if precision in ("bf16", "fp16") else "no",
        kwargs_handlers=handlers,
    )
    if precision == "fp16" and device.type == "cpu":
        # Accelerate leaves fp16 off on a CPU without a word; torch has both parts.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=FIRST_SCALE)
    return accelerator


def cast_frozen(model: nn.Module, precision: Precision, fp32_modules: Sequence[str]) -> None:
    """Hold the weights that are not trained in the compute type, except those of ``fp32_modules``."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.is_floating_point() and not _inside(name, fp32_modules):
            parameter.data = parameter.data.to(COMPUTE[precision])


def _inside(parameter: str, prefixes: Sequence[str]) -> bool:
    name = parameter.removeprefix("base_model.model.")  # PEFT's wrapping
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
