"""Reading released transformers: DiT and PixArt-alpha in the layout of diffusers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablation.errors import UserError
from ablation.systems.dit.settings import Architecture, Condition
from ablation.systems.released import read_config
from ablation.systems.weights import fill_strictly, read_weights

DOWNLOAD = """\
  DiT-XL/2 at 256 pixels (3 GB, CC BY-NC 4.0), with its autoencoder:
    hf download facebook/DiT-XL-2-256 transformer/ vae/ --local-dir models/DiT-XL-2-256
  for captions, PixArt-alpha at 256 pixels (2.4 GB, OpenRAIL++), with its autoencoder:
    hf download PixArt-alpha/PixArt-XL-2-256x256 transformer/ vae/ --local-dir models/PixArt-XL-2-256x256"""

OURS, TABLE = "transformer.", "transformer.pos_embed.pos_embed"  # the table of positions is computed
EMBEDDER = ".norm1.emb."


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` from a released file, or from one that a run trained in full, in fp32; every name and shape must match."""
    state = read_weights(path, DOWNLOAD)
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise UserError(f"{path}: holds no plain state dict (name -> tensor)")
    if not any(name.startswith(OURS) for name in state):
        state = renamed(state, path)
    fill_strictly(model, state, str(path), ignored=TABLE)


def renamed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A released state under our names. The embedder that every block has a copy of becomes one; UserError if they differ."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        _, inside, rest = name.partition(EMBEDDER)
        if not inside:
            found[OURS + name] = value
        elif (first := found.setdefault(f"embedder.{rest}", value)) is not value and not torch.equal(first, value):
            raise UserError(f"{path}: {name} differs from that of an earlier block; a DiT has one embedder, repeated in each")
    return found


def unfit(path: Path, condition: Condition, a: Architecture) -> list[str]:
    """What is missing of the weights, or does not fit ``a``; a line each. Reads the description beside them."""
    if not path.is_file():
        return [f"weights: {path} is not there\n{DOWNLOAD}"]
    if not (path.parent / "config.json").is_file():
        return []  # what a run trained; shapes are checked when it is loaded
    try:
        config = read_config(path.parent, DOWNLOAD)
    except UserError as error:
        return [f"weights: {error}"]
    pairs = {
        "depth": ("num_layers", a.depth),
        "heads": ("num_attention_heads", a.heads),
        "head_dim": ("attention_head_dim", a.head_dim),
        "patch": ("patch_size", a.patch),
        "latent_size": ("sample_size", a.latent_size),
        "latent_channels": ("in_channels", a.latent_channels),
        **({"classes": ("num_embeds_ada_norm", a.classes)} if condition == "class" else {}),
        **({"text_dim": ("caption_channels", a.text_dim)} if condition == "caption" else {}),
    }
    return [
        f"weights: {path.parent / 'config.json'} says {theirs} = {config[theirs]}, model.architecture.{ours} is {value}"
        for ours, (theirs, value) in pairs.items()
        if _known(config, theirs) and config[theirs] != value
    ]


def _known(config: Mapping[str, Any], name: str) -> bool:
    return config.get(name) is not None
