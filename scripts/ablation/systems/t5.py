"""T5's encoder (Raffel et al. 2020) and its tokenizer, frozen, from a folder in the layout of transformers."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ablation.errors import UserError
from ablation.systems.released import first_line, load_frozen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOWNLOAD = """\
  T5 v1.1 XXL, the encoder alone (9.5 GB, Apache-2.0), and its tokenizer, in one folder:
    hf download THUDM/CogVideoX-2b text_encoder/ tokenizer/ --local-dir models/t5
    mv models/t5/text_encoder models/t5-v1_1-xxl && mv models/t5/tokenizer/* models/t5-v1_1-xxl"""
TOKENIZERS = ("tokenizer.json", "spiece.model")
UNUSED = ("decoder.", "lm_head.")  # of a file that holds the whole T5


class TextEncoder:
    """The encoder, bf16 on a GPU, else fp32, with its tokenizer."""

    def __init__(self, folder: Path, device: torch.device):
        from transformers import T5EncoderModel

        self.device = device
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model = load_frozen(T5EncoderModel, folder, DOWNLOAD, UNUSED, use_safetensors=True, dtype=dtype).to(device)
        self.tokenizer = _tokenizer(folder)
        if len(self.tokenizer) > self.model.config.vocab_size:
            words = f"{len(self.tokenizer)} pieces, the encoder {self.model.config.vocab_size}"
            raise UserError(f"{folder}: the tokenizer knows {words}; are they of one model?")

    @torch.inference_mode()
    def __call__(self, text: str) -> Tensor:
        """A state for each piece of ``text`` and its end [N, D], fp16, on the CPU."""
        pieces = torch.tensor([self.tokenizer(text).input_ids], device=self.device)
        return halved(self.model(pieces).last_hidden_state[0], f"the text encoder on {text!r}")


def halved(states: Tensor, who: str) -> Tensor:
    """``states`` in fp16, on the CPU. Raises UserError where ``who`` gave what that cannot hold."""
    half = states.half().cpu()
    if not half.isfinite().all():
        raise UserError(f"{who} gives numbers that are not finite, or beyond fp16")
    return half


def _tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZERS):  # transformers would make one that knows no word
        raise UserError(f"{folder}: has no tokenizer ({' or '.join(TOKENIZERS)})\n{DOWNLOAD}")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(f"{folder}: has no tokenizer that can be read ({first_line(error)})\n{DOWNLOAD}") from None
