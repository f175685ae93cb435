"""Reading VGGT's released weights."""

from pathlib import Path

from torch import nn

from ablation.systems.vggt.model.vggt import IGNORED
from ablation.systems.weights import load_strictly

DOWNLOAD = """\
  VGGT-1B: hf download facebook/VGGT-1B model.safetensors --local-dir models/VGGT-1B   (5 GB)
  Licence: non-commercial for VGGT-1B; VGGT-1B-Commercial (gated) has the same architecture and allows commercial use."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` from ``model.safetensors`` or ``model.pt`` in fp32; every name must match, ``track_head.*`` aside."""
    load_strictly(model, path, DOWNLOAD, IGNORED)
