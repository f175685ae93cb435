"""The order of the data: a pure function of seed and epoch, so that resuming needs nothing but a position.

An optimizer step holds the same samples however they are split into forward passes and processes: runs of one effective batch
differ in nothing else.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from ablation.systems.base import Draw, Samples


class Split(NamedTuple):
    """How the samples of an optimizer step become batches, and which of them are this process's."""

    batch: int
    accumulation: int = 1
    processes: int = 1
    process: int = 0

    @property
    def samples(self) -> int:
        """Samples of a step in all processes: the effective batch."""
        return self.batch * self.accumulation * self.processes

    def mine(self, step: Sequence[Draw]) -> list[list[Draw]]:
        """This process's batches, one for each forward pass, of the samples of a step."""
        passes = self.batch * self.processes
        starts = range(self.process * self.batch, self.samples, passes)
        return [list(step[start : start + self.batch]) for start in starts]


def steps_of_epoch(groups: Sequence[int], samples: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of each step's ``samples``. Every step is full and of one group; a group's last is filled from its start."""
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(groups))
    found: list[list[int]] = []
    for group in dict.fromkeys(groups):
        members = [int(index) for index in shuffled if groups[index] == group]
        short = -len(members) % samples
        members += [members[i % len(members)] for i in range(short)]
        found += [members[i : i + samples] for i in range(0, len(members), samples)]
    return [found[i] for i in rng.permutation(len(found))]


def draws(groups: Sequence[int], samples: int, seed: int, start: int) -> Iterator[list[Draw]]:
    """The samples of each step without end, from step number ``start`` on."""
    per_epoch = steps_per_epoch(groups, samples)
    for epoch in count(start // per_epoch):
        first = start % per_epoch if epoch == start // per_epoch else 0
        indices = steps_of_epoch(groups, samples, seed, epoch)
        for number in range(first, per_epoch):
            yield [Draw(seed, epoch, number, index) for index in indices[number]]


def steps_per_epoch(groups: Sequence[int], samples: int) -> int:
    """Optimizer steps of one pass over the data."""
    return len(steps_of_epoch(groups, samples, 0, 0))


def loader(samples: Samples, split: Split, seed: int, start: int, stop: int, workers: int, pin: bool) -> DataLoader:
    """This process's batches of steps ``start`` to ``stop`` as tensors; the same whatever the number of workers."""
    steps = islice(draws(samples.groups(), split.samples, seed, start), stop - start)
    sampler = [batch for step in steps for batch in split.mine(step)]
    # A generator of its own: the loader draws a seed when it starts, which must not disturb the model's random numbers.
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        collate_fn=default_collate,
        generator=generator,
    )


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch on ``device``; pinned memory is copied without waiting."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
