"""Every step of every episode as a training or evaluation sample."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ablation.systems.base import Draw
from ablation.systems.rdt.data.dropout import Hidden, draw_hidden, nothing_hidden
from ablation.systems.rdt.data.episode import Episode, recording
from ablation.systems.rdt.data.statistics import statistics_of
from ablation.systems.rdt.data.tokens import Tokens
from ablation.systems.rdt.data.unified import Mapping
from ablation.systems.rdt.diffusion import STEPS
from ablation.systems.rdt.robots import VIEWS
from ablation.systems.rdt.settings import Data


class Chance(IntEnum):
    """What is random in a sample. Each has numbers of its own, so that runs that differ in one share the others."""

    TEXT = 1
    NOISE = 2
    HIDDEN = 3
    IMAGES = 4
    DIFFUSION = 5


class StepDataset(Dataset[dict[str, Tensor]]):
    """Samples of the given episodes, with the embeddings of their texts and images.

    A sample holds ``state`` [1, 128] and its ``mask`` [1, 128]; ``actions`` [horizon, 128], from the same step on, the last
    of the episode repeated; ``noise`` of their shape and ``diffusion``, the diffusion step; ``lang_tokens`` [L, D], fp16, and
    ``lang_mask`` [L]; ``img_tokens`` [history * 3 * P, D], fp16, older first, cameras in the order of ``VIEWS``;
    ``frequency`` in Hz.
    """

    def __init__(self, episodes: Sequence[Episode], tokens: Tokens, data: Data, horizon: int, history: int, train: bool):
        self.episodes, self.tokens, self.data = list(episodes), tokens, data
        self.horizon, self.history, self.train = horizon, history, train
        self.states, self.actions = Mapping(data.mapping.state), Mapping(data.mapping.action)
        recorded = [_recorded(episode, data) for episode in self.episodes]
        self.recorded = [
            (states[e.first :], actions[e.first :]) for e, (states, actions) in zip(self.episodes, recorded, strict=True)
        ]
        """Positions [N, J] and targets [N, K] of the steps in use of each episode, as recorded."""
        whole = [self.states.to_unified(states).astype(np.float64) for states, _ in recorded]
        self.spreads = [states.std(axis=0).astype(np.float32) for states in whole]
        """Of each episode [128], over all its steps, the still ones at its beginning, too, as in the release."""
        self.norms = [np.sqrt((states**2).mean(axis=0)) for states in whole]
        """The same of the root mean square."""
        self.statistics = statistics_of(self.states.to_unified(states) for states, _ in self.recorded)
        self.ends = np.cumsum([len(states) for states, _ in self.recorded])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def groups(self) -> list[int]:
        """All samples are alike and may share a batch."""
        return [0] * len(self)

    def place(self, index: int) -> tuple[int, int]:
        """The number of a sample's episode, and its step, counted from the first in use."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, len(self.recorded[number][0]) - int(self.ends[number]) + index

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample of ``draw``; all randomness comes from its seed, epoch and index, in evaluation from its index alone."""
        draw = draw if self.train else Draw(0, 0, 0, draw.index)
        number, step = self.place(draw.index)
        hidden = self._hidden(draw)
        state, mask = self._state(number, step, hidden, draw)
        actions = self._actions(number, step)
        lang_tokens, lang_mask = self.tokens.text("" if hidden.text else self._text(self.episodes[number], draw))
        rng = generator(draw, Chance.DIFFUSION)
        return {
            "state": torch.from_numpy(state),
            "mask": torch.from_numpy(mask),
            "actions": torch.from_numpy(actions),
            "noise": torch.from_numpy(rng.standard_normal(actions.shape, np.float32)),
            "diffusion": torch.tensor(rng.integers(STEPS)),
            "lang_tokens": lang_tokens,
            "lang_mask": lang_mask,
            "img_tokens": self._images(self.episodes[number], step, hidden, draw),
            "frequency": torch.tensor(0 if hidden.frequency else self.data.frequency),
        }

    def _hidden(self, draw: Draw) -> Hidden:
        if not self.train:
            return nothing_hidden(self.history, len(VIEWS))
        return draw_hidden(generator(draw, Chance.HIDDEN), self.data.dropout, self.history, len(VIEWS))

    def _state(self, number: int, step: int, hidden: Hidden, draw: Draw) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        state, mask = self.states.to_unified(self.recorded[number][0][step : step + 1]), self.states.mask
        if self.train and self.data.noise_snr is not None:
            state = noisy(generator(draw, Chance.NOISE), state, self.spreads[number], self.data.noise_snr)
        if hidden.state:
            state = self.statistics.state_mean.astype(np.float32)[None]
        return state, np.zeros_like(mask)[None] if hidden.mask else mask[None]

    def _actions(self, number: int, step: int) -> NDArray[np.float32]:
        actions = self.actions.to_unified(self.recorded[number][1][step : step + self.horizon])
        return np.pad(actions, ((0, self.horizon - len(actions)), (0, 0)), mode="edge")

    def _text(self, episode: Episode, draw: Draw) -> str:
        """One of the kinds, then one of its sentences; the original instruction in evaluation."""
        if not self.train:
            return episode.instruction
        rng = generator(draw, Chance.TEXT)
        sentences = episode.instructions[rng.integers(len(episode.instructions))]
        return sentences[rng.integers(len(sentences))]

    def _images(self, episode: Episode, step: int, hidden: Hidden, draw: Draw) -> Tensor:
        """The images at ``step`` and before; steps that are not in use count as not there."""
        found = []
        for age, at in enumerate(range(step - self.history + 1, step + 1)):
            for number, view in enumerate(VIEWS):
                if view not in self.data.views or at < 0 or hidden.images[age, number]:
                    found.append(self.tokens.images.background)
                else:
                    version = self._version(generator(draw, Chance.IMAGES, age, number)) if self.train else 0
                    found.append(self.tokens.images(episode, at, self.data.views.index(view), version))
        return torch.cat(found)

    def _version(self, rng: np.random.Generator) -> int:
        """Which version of an image: as it is, or one of the changed ones."""
        changed = rng.random() < self.data.augment.share
        return int(rng.integers(1, self.data.versions)) if changed else 0


def generator(draw: Draw, chance: Chance, *which: int) -> np.random.Generator:
    """The random numbers of one thing in one sample of one epoch; ``which`` tells apart things of one kind."""
    return np.random.default_rng([draw.seed, draw.epoch, draw.index, chance, *which])


def noisy(rng: np.random.Generator, state: NDArray[np.float32], std: NDArray[np.float32], snr: float) -> NDArray[np.float32]:
    """``state`` [1, 128] with noise ``snr`` dB below the spread ``std`` [128] of its episode (train/dataset.py)."""
    return state + rng.standard_normal(state.shape, np.float32) * std * np.float32(10 ** (-snr / 20))


def _recorded(episode: Episode, data: Data) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Positions and targets of all steps. They are small; the file is not opened again."""
    with recording(episode.path, data.mapping) as opened:
        return opened.states().astype(np.float32), opened.actions().astype(np.float32)
