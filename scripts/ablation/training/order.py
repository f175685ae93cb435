"""The order of the data: a pure function of seed and epoch, so that resuming needs nothing but a position."""

from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from ablation.systems.base import Draw, Samples


def batches_of_epoch(groups: Sequence[int], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of each batch. Every batch is full and of one group; the last of a group is filled from the group's start."""
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(groups))
    found: list[list[int]] = []
    for group in dict.fromkeys(groups):
        members = [int(index) for index in shuffled if groups[index] == group]
        short = -len(members) % batch
        members += [members[i % len(members)] for i in range(short)]
        found += [members[i : i + batch] for i in range(0, len(members), batch)]
    return [found[i] for i in rng.permutation(len(found))]


def draws(groups: Sequence[int], batch: int, seed: int, start: int) -> Iterator[list[Draw]]:
    """Batches without end, from batch number ``start`` on."""
    per_epoch = len(batches_of_epoch(groups, batch, seed, 0))
    for epoch in count(start // per_epoch):
        first = start % per_epoch if epoch == start // per_epoch else 0
        indices = batches_of_epoch(groups, batch, seed, epoch)
        for number in range(first, per_epoch):
            yield [Draw(seed, epoch, number, index) for index in indices[number]]


def batches_per_epoch(groups: Sequence[int], batch: int) -> int:
    """Batches of one pass over the data."""
    return len(batches_of_epoch(groups, batch, 0, 0))


def loader(samples: Samples, batch: int, seed: int, start: int, stop: int, workers: int, pin: bool) -> DataLoader:
    """Batches ``start`` to ``stop`` as tensors; the same whatever the number of workers."""
    sampler = list(islice(draws(samples.groups(), batch, seed, start), stop - start))
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
