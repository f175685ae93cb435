"""Qwen2-VL, Qwen2.5-VL or Qwen3-VL, asked for the objects of pictures.

Wang et al. 2024, arXiv:2409.12191; 7B-Instruct is Apache-2.0. Its processor in transformers wants torchvision for videos, so
the prompt (ChatML with a run of image tokens) is put together here, and pictures go through the processor for Pillow.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging as transformers_logging

from ablation.errors import UserError
from ablation.systems.kolors.data.answers import question
from ablation.systems.kolors.data.conventions import FAMILIES, SEEN, Convention
from ablation.systems.released import check_folder

DOWNLOAD = "  hf download Qwen/Qwen2-VL-7B-Instruct --local-dir models/Qwen2-VL-7B-Instruct    (16.6 GB, Apache-2.0)"
READ = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Families that share the prompt and the processor of pictures; Qwen3-VL's patches are larger, as its folder says."""
LONGEST = 1024
"""Tokens of an answer: about 30 boxes."""
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
AFTER = "<|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"


class Labeller:
    """The model with its tokenizer; answers greedily."""

    def __init__(self, folder: Path, device: torch.device, convention: Convention = FAMILIES["qwen2-vl"]):
        check_folder(folder, DOWNLOAD)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            self.pictures = Qwen2VLImageProcessorPil.from_pretrained(str(folder), local_files_only=True, size=SEEN)
            self.model = _model(folder, device)
        except Exception as error:  # whatever a damaged file leads to
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{folder}: cannot be read as Qwen2-VL, Qwen2.5-VL or Qwen3-VL ({first})\n{DOWNLOAD}") from None
        self.device, self.after = device, AFTER.format(question(convention))
        self.pad = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        ends = [self.tokenizer.convert_tokens_to_ids("<|im_end|>"), self.pad]
        self.model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=LONGEST, eos_token_id=ends, pad_token_id=self.pad
        )

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        """The model's answer to each of ``pictures``, as it is."""
        inputs = self.inputs(pictures)
        answers = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)

    def inputs(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """What the model reads: patches, prompts, and which tokens stand for a picture, which have places of two dimensions."""
        seen = self.pictures(images=list(pictures), return_tensors="pt").to(self.device)
        asked, mask = self._prompts(seen["image_grid_thw"])
        return {
            "input_ids": asked,
            "attention_mask": mask,
            "mm_token_type_ids": (asked == self.model.config.image_token_id).int(),
            "pixel_values": seen["pixel_values"].to(self.model.dtype),
            "image_grid_thw": seen["image_grid_thw"],
        }

    def _prompts(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and mask [N, L], padded on the left, for pictures of so many patches: time, height, width."""
        before, after = (self.tokenizer(text, add_special_tokens=False).input_ids for text in (BEFORE, self.after))
        counts = (grids.prod(dim=1) // self.pictures.merge_size**2).tolist()
        prompts = [before + [self.model.config.image_token_id] * count + after for count in counts]
        longest = max(map(len, prompts))
        padded = [[self.pad] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(padded, device=self.device), torch.tensor(mask, device=self.device)


def _model(folder: Path, device: torch.device) -> PreTrainedModel:
    """Every parameter must be there, and no other; bf16 on a GPU, else fp32."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model, found = AutoModelForImageTextToText.from_pretrained(
        str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
    )
    if model.config.model_type not in READ:
        raise ValueError(f"it is a {model.config.model_type}")
    if wrong := sorted(found["missing_keys"]) or sorted(found["unexpected_keys"]):
        what = "lacks" if found["missing_keys"] else "has too much:"
        raise ValueError(f"{what} {len(wrong)} parameters, {', '.join(wrong[:5])}")
    return model.to(device).eval().requires_grad_(False)
