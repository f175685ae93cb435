"""The cache of captions: their states as a frozen T5 gives them, once for all.

``captions.json``: texts and numbers of tokens; ``states.npy`` [all tokens, D], fp16, one caption after the other.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ablation.errors import UserError
from ablation.files import write_json

TEXTS, STATES = "captions.json", "states.npy"
NOTHING = ""  # the caption of a sample that is told nothing

EncodeText = Callable[[str], Tensor]
"""A text -> states [N, D], fp16."""


def as_released(text: str) -> str:
    """A caption as PixArt-alpha's encoder takes it, in small letters (diffusion/model/t5.py, and its pipeline)."""
    return text.lower().strip()


class Captions:
    """Cached states, cut or padded to ``length`` tokens."""

    def __init__(self, folder: Path, length: int):
        listed = json.loads((folder / TEXTS).read_text(encoding="utf-8"))
        ends = np.cumsum([count for _, count in listed]).tolist()
        self._spans = {text: (end - count, end) for (text, count), end in zip(listed, ends, strict=True)}
        self._states = np.load(folder / STATES, mmap_mode="r")
        self.length = length

    @property
    def width(self) -> int:
        """Of a state."""
        return self._states.shape[1]

    def __call__(self, text: str) -> tuple[Tensor, Tensor]:
        """States [L, D], fp16, zeros behind the text, and the mask [L], true where there is one."""
        text = as_released(text)
        if text not in self._spans:
            raise UserError(f"the caption {text!r} was not prepared; it is of none of the images")
        start, end = self._spans[text]
        count = min(end - start, self.length)
        states = torch.zeros(self.length, self.width, dtype=torch.float16)
        states[:count] = torch.from_numpy(self._states[start : start + count].copy())
        return states, torch.arange(self.length) < count


def cache_captions(texts: Iterable[str], encode: EncodeText, out: Path) -> None:
    """The states of all ``texts``, and of no text."""
    distinct = dict.fromkeys(map(as_released, [NOTHING, *texts]))
    states = [encode(text) for text in tqdm(distinct, desc="encoding captions", disable=None)]
    write_json(out / TEXTS, [[text, len(found)] for text, found in zip(distinct, states, strict=True)])
    np.save(out / STATES, torch.cat(states).numpy())
