"""Reading RDT's released weights."""

from pathlib import Path

from torch import nn

from ablation.systems.weights import load_strictly

DOWNLOAD = """\
  RDT-1B: hf download robotics-diffusion-transformer/rdt-1b pytorch_model.bin --local-dir models/rdt-1b   (2.5 GB in bf16)
  Licence: MIT."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` from ``pytorch_model.bin``, ``model.safetensors`` or DeepSpeed's file in fp32; every name must match."""
    load_strictly(model, path, DOWNLOAD)
