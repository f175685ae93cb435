"""ChatGLM3's tokenizer: a sentencepiece model and the numbers that follow its last piece.

diffusers' class for it stands on transformers' general tokenizer, which reads ``</s>`` in a caption as the end of the text;
here a text is text.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from ablation.errors import UserError

FILE = "tokenizer.model"
SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
"""What ChatGLM3 adds behind the pieces, in this order."""


class Padded(NamedTuple):
    """Tokens [L], int64, and the mask [L], true where one counts."""

    tokens: Tensor
    mask: Tensor


class Tokenizer:
    """Texts to numbers and back; the released model has 64,789 pieces, so [gMASK] is 64790 and sop 64792."""

    def __init__(self, folder: Path):
        if not (folder / FILE).is_file():
            raise UserError(f"{folder / FILE} is not there: the tokenizer of ChatGLM3, a sentencepiece model")
        try:
            self.pieces = SentencePieceProcessor(model_file=str(folder / FILE))
        except Exception as error:
            raise UserError(f"{folder / FILE}: no sentencepiece model ({error})") from None
        self.special = {name: self.pieces.vocab_size() + number for number, name in enumerate(SPECIAL)}
        self.prefix = [self.special["[gMASK]"], self.special["sop"]]
        """What every text begins with."""
        self.pad = self.pieces.unk_id()

    def __len__(self) -> int:
        return self.pieces.vocab_size() + len(SPECIAL)

    def caption(self, text: str, length: int) -> Padded:
        """The two tokens of the prefix and those of ``text``, as many as there is room for; padding on the left."""
        return self._padded([*self.prefix, *self.pieces.encode(text)][:length], length, left=True)

    def label(self, text: str, length: int) -> Padded:
        """The tokens of ``text`` alone; padding on the right."""
        return self._padded(self.pieces.encode(text)[:length], length, left=False)

    def decode(self, tokens: list[int]) -> str:
        """The text of ``tokens``, less the special ones."""
        return self.pieces.decode([token for token in tokens if token < self.pieces.vocab_size()])

    def _padded(self, tokens: list[int], length: int, left: bool) -> Padded:
        padded = np.full(length, self.pad, np.int64)
        mask = np.zeros(length, bool)
        where = slice(length - len(tokens), length) if left else slice(len(tokens))
        padded[where], mask[where] = tokens, True
        return Padded(torch.from_numpy(padded), torch.from_numpy(mask))
