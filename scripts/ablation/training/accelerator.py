"""Accelerate as a run needs it: its number format, and how its processes share a model."""

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import GradScalerKwargs, InitProcessGroupKwargs

from ablation.errors import UserError
from ablation.settings import Precision
from ablation.sweep import Run
from ablation.systems.base import System
from ablation.training.processes import join, place, started
from ablation.training.zero import deepspeed_plugin

FIRST_SCALE = 2.0**14  # the default 2^16 overflows on the first steps of most fine-tuning


def accelerator_for(run: Run, system: System, device: torch.device) -> Accelerator:
    """Accelerate for one of the processes of ``run``.

    Objectives one after the other may leave parameters unused. Their sum may not: it goes forward once for each of them before
    it goes backward, and what one of these passes leaves unused would be taken for done.
    """
    if started():
        join("nccl" if device.type == "cuda" else "gloo", run.settings.compute.patience_min)
    if run.strategy.distributed == "ddp":
        alone = len(system.objectives) > 1 and run.strategy.backward == "each"
        return make_accelerator(run.axes["precision"], device, find_unused=alone)
    return make_accelerator(run.axes["precision"], device, deepspeed_plugin=deepspeed_plugin(run))


def make_accelerator(precision: Precision, device: torch.device, find_unused: bool = False, **sharing) -> Accelerator:
    """Accelerate for one device a process and a precision; autocast and, for fp16, loss scaling come with it."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError("precision tf32 needs a CUDA device (Ampere or later); on a CPU use fp32")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    handlers = [GradScalerKwargs(init_scale=FIRST_SCALE), DistributedDataParallelKwargs(find_unused_parameters=find_unused)]
    if device.type == "cpu" and (place().count > 1 or sharing):
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
    accelerator = Accelerator(
        cpu=device.type == "cpu" and not sharing,  # with it, Accelerate leaves DeepSpeed aside without a word
        device_placement=False,
        mixed_precision=precision if precision in ("bf16", "fp16") else "no",
        kwargs_handlers=handlers,
        **sharing,
    )
    if precision == "fp16" and device.type == "cpu":
        # Accelerate leaves fp16 off on a CPU without a word; torch has both parts.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=FIRST_SCALE)
    return accelerator
