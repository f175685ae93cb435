"""The frozen text encoder before PixArt, T5: whether it is there and fits. Its states are cached."""

from pathlib import Path

from ablation.errors import UserError
from ablation.systems.released import read_config
from ablation.systems.t5 import DOWNLOAD


def unfit(folder: Path, text_dim: int) -> list[str]:
    """What is missing of the encoder, or does not fit the transformer; a line each. Reads one small file."""
    try:
        found = read_config(folder, DOWNLOAD).get("d_model")
    except UserError as error:
        return [f"model.text_encoder: {error}"]
    fits = found == text_dim
    return [] if fits else [f"model.text_encoder: {folder} gives {found}, model.architecture.text_dim says {text_dim}"]
