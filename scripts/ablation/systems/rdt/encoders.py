"""The frozen encoders before RDT: T5 for instructions, SigLIP for images, from folders in the layout of transformers.

What they give is cached on disk as fp16 (:mod:`ablation.systems.rdt.data.tokens`); no training step holds them.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import SiglipVisionModel

from ablation.errors import UserError
from ablation.systems import t5
from ablation.systems.rdt.settings import SystemSettings
from ablation.systems.released import load_frozen, read_config

DOWNLOAD = """\
  SigLIP so400m/14 at 384 (3.5 GB, Apache-2.0):
    hf download google/siglip-so400m-patch14-384 config.json model.safetensors --local-dir models/siglip-so400m-patch14-384"""

UNUSED = ("text_model.", "logit_scale", "logit_bias")
"""Parameters of the released file that belong to the half that is not used."""


class ImageEncoder:
    """SigLIP's image tower; bf16 on a GPU, as RDT was trained with, else fp32."""

    def __init__(self, folder: Path, device: torch.device):
        self.device = device
        _config(folder, DOWNLOAD)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model = load_frozen(SiglipVisionModel, folder, DOWNLOAD, UNUSED, use_safetensors=True, dtype=dtype).to(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """``images`` [N, 3, S, S], uint8 -> a token for each patch [N, P, D], fp16, on the CPU."""
        pixels = (images.to(self.device).float() / 127.5 - 1).to(self.model.dtype)  # bf16 has no room for 256 greys
        return t5.halved(self.model(pixels).last_hidden_state, "the image encoder")


def unfit(settings: SystemSettings) -> list[str]:
    """What is missing of the encoders, or does not fit the network; a line each. Reads two small files."""
    encoders, a, data = settings.model.encoders, settings.model.architecture, settings.data
    lines, sizes = [], {}
    for name, folder, download in (("text", encoders.text, t5.DOWNLOAD), ("image", encoders.image, DOWNLOAD)):
        try:
            sizes[name] = _config(Path(folder), download)
        except UserError as error:
            lines.append(f"model.encoders.{name}: {error}")
    architecture = "model.architecture"
    if text := sizes.get("text"):
        lines += _differs("text", encoders.text, {f"{architecture}.lang_dim": (text.get("d_model"), a.lang_dim)})
    if image := sizes.get("image"):
        patches = _patches(image)
        pairs = {
            f"{architecture}.img_dim": (image.get("hidden_size"), a.img_dim),
            f"{architecture}.images.patches": (patches, a.images.patches),
            "data.image_size": (image.get("image_size"), data.image_size),
        }
        lines += _differs("image", encoders.image, pairs)
    return lines


def _patches(image: dict[str, Any]) -> int | None:
    """Tokens of an image; None where the description does not say."""
    size, patch = image.get("image_size"), image.get("patch_size")
    return (size // patch) ** 2 if isinstance(size, int) and isinstance(patch, int) and patch > 0 else None


def _differs(name: str, folder: str, pairs: dict[str, tuple[Any, int]]) -> list[str]:
    return [
        f"model.encoders.{name}: {folder} gives {found}, {setting} says {wanted}"
        for setting, (found, wanted) in pairs.items()
        if found != wanted
    ]


def _config(folder: Path, download: str) -> dict[str, Any]:
    """The encoder's sizes; those of the image tower where the file describes both."""
    config = read_config(folder, download)
    tower = config.get("vision_config", {})
    if not isinstance(tower, dict):
        raise UserError(f"{folder / 'config.json'}: no description of a network (vision_config is no mapping)")
    return {**config, **tower}
