"""The frozen encoders before RDT: T5 for instructions, SigLIP for images, from folders in the layout of transformers.

What they give is cached on disk as fp16 (:mod:`ablation.systems.rdt.data.tokens`); no training step holds them.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, SiglipVisionModel, T5EncoderModel
from transformers.utils import logging as transformers_logging

from ablation.errors import UserError
from ablation.systems.rdt.settings import SystemSettings

DOWNLOAD = """\
  T5 v1.1 XXL, the encoder alone (9.5 GB, Apache-2.0), and its tokenizer, in one folder:
    hf download THUDM/CogVideoX-2b --include "text_encoder/*" "tokenizer/*" --local-dir models/t5
    mv models/t5/text_encoder models/t5-v1_1-xxl && mv models/t5/tokenizer/* models/t5-v1_1-xxl
  SigLIP so400m/14 at 384 (3.5 GB, Apache-2.0):
    hf download google/siglip-so400m-patch14-384 config.json model.safetensors --local-dir models/siglip-so400m-patch14-384"""

TOKENIZERS = ("tokenizer.json", "spiece.model")
UNUSED = ("decoder.", "lm_head.", "text_model.", "logit_scale", "logit_bias")
"""Parameters of the released files that belong to the half that is not used."""


class TextEncoder:
    """T5's encoder and its tokenizer."""

    def __init__(self, folder: Path, device: torch.device):
        self.device = device
        self.model = _released(T5EncoderModel, folder, device)
        self.tokenizer = _tokenizer(folder)
        if len(self.tokenizer) > self.model.config.vocab_size:
            words = f"{len(self.tokenizer)} pieces, the encoder {self.model.config.vocab_size}"
            raise UserError(f"{folder}: the tokenizer knows {words}; are they of one model?")

    @torch.inference_mode()
    def __call__(self, sentence: str) -> Tensor:
        """A token for each piece of the sentence and its end [N, D], fp16."""
        pieces = torch.tensor([self.tokenizer(sentence).input_ids], device=self.device)
        return _half(self.model(pieces).last_hidden_state[0], f"the text encoder on {sentence!r}")


class ImageEncoder:
    """SigLIP's image tower."""

    def __init__(self, folder: Path, device: torch.device):
        self.device = device
        self.model = _released(SiglipVisionModel, folder, device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """``images`` [N, 3, S, S], uint8 -> a token for each patch [N, P, D], fp16, on the CPU."""
        pixels = images.to(self.device, self.model.dtype) / 127.5 - 1
        return _half(self.model(pixels).last_hidden_state, "the image encoder")


def encoder_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def unfit(settings: SystemSettings) -> list[str]:
    """What is missing of the encoders, or does not fit the network; a line each. Reads two small files."""
    encoders, a, data = settings.model.encoders, settings.model.architecture, settings.data
    lines, sizes = [], {}
    for name, folder in (("text", encoders.text), ("image", encoders.image)):
        try:
            sizes[name] = _config(Path(folder))
        except UserError as error:
            lines.append(f"model.encoders.{name}: {error}")
    architecture = "model.architecture"
    if text := sizes.get("text"):
        lines += _differs("text", encoders.text, {f"{architecture}.lang_dim": (text.get("d_model"), a.lang_dim)})
    if image := sizes.get("image"):
        patches = (image.get("image_size", 0) // image.get("patch_size", 1)) ** 2
        pairs = {
            f"{architecture}.img_dim": (image.get("hidden_size"), a.img_dim),
            f"{architecture}.images.patches": (patches, a.images.patches),
            "data.image_size": (image.get("image_size"), data.image_size),
        }
        lines += _differs("image", encoders.image, pairs)
    return lines


def _differs(name: str, folder: str, pairs: dict[str, tuple[Any, int]]) -> list[str]:
    return [
        f"model.encoders.{name}: {folder} gives {found}, {setting} says {wanted}"
        for setting, (found, wanted) in pairs.items()
        if found != wanted
    ]


def _config(folder: Path) -> dict[str, Any]:
    """The encoder's sizes; those of the image tower where the file describes both."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{path} is not there\n{DOWNLOAD}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {**config, **config.get("vision_config", {})}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: no description of a network ({_first(error)})") from None


def _released(kind: type[PreTrainedModel], folder: Path, device: torch.device) -> PreTrainedModel:
    """The encoder of a folder, frozen; bf16 on a GPU, as RDT was trained with, else fp32. Every parameter must be there."""
    _config(folder)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        model, found = kind.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be read as {kind.__name__} ({_first(error)})\n{DOWNLOAD}") from None
    unknown = [name for name in found["unexpected_keys"] if not name.startswith(UNUSED)]
    if wrong := sorted(found["missing_keys"]) or unknown:
        what = "lacks" if found["missing_keys"] else "has too much:"
        raise UserError(f"{folder}: is no {kind.__name__}: {what} {len(wrong)} parameters, {', '.join(wrong[:5])}")
    return model.to(device).eval().requires_grad_(False)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in TOKENIZERS):  # transformers would make one that knows no word
        raise UserError(f"{folder}: has no tokenizer ({' or '.join(TOKENIZERS)})\n{DOWNLOAD}")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: has no tokenizer that can be read ({_first(error)})\n{DOWNLOAD}") from None


def _half(tokens: Tensor, who: str) -> Tensor:
    half = tokens.half().cpu()
    if not half.isfinite().all():
        raise UserError(f"{who} gives numbers that are not finite, or beyond fp16")
    return half


def _first(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
