"""Which device a job computes on."""

from typing import TYPE_CHECKING

from ablation.errors import UserError
from ablation.heap import keep_heap
from ablation.settings import Scale

if TYPE_CHECKING:
    import torch


def choose_device(wanted: str, scale: Scale) -> "torch.device":
    """``auto``: the GPU where there is one, else the CPU, which is for the demo scale only; its memory then stays with it."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted == "cpu" and scale == "full":
            raise UserError(
                "no CUDA device is visible, and scale full on a CPU would take weeks\n"
                "  on a cluster: snakemake --profile slurm; to insist: scripts/train_run.py --device cpu"
            )
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device cuda: torch sees no CUDA device (is this the CPU build of torch, or CUDA_VISIBLE_DEVICES empty?)"
        )
    if wanted == "cpu":
        keep_heap()
    return torch.device(wanted)
