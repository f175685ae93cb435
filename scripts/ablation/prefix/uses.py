"""Which inputs the runs that share a frozen part will ask for, and how often: their draws are known before they are trained."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from ablation.ahead import steps_of
from ablation.sweep import Run
from ablation.systems.base import Draw, SharedSamples
from ablation.training import order

SHARED = 2  # uses from which an output is worth keeping


class Use(NamedTuple):
    """One of the draws that give an input, and how often runs use that."""

    draw: Draw
    count: int


def training_uses(runs: Sequence[Run], samples: SharedSamples) -> list[Use]:
    """The training inputs that are used more than once; the most used first, else in the order of their steps."""
    groups, found, first = samples.groups(), Counter(), {}
    alike = Counter((run.axes["seed"], run.effective_batch, steps_of(run, groups)) for run in runs)
    for (seed, of_step, steps), count in sorted(alike.items()):
        for step in islice(order.draws(groups, of_step, seed, 0), steps):
            for draw in step:
                key = samples.alike(draw)
                found[key] += count
                first.setdefault(key, draw)
    return [Use(first[key], count) for key, count in found.most_common() if count >= SHARED]


def held_out_uses(runs: Sequence[Run], samples: SharedSamples) -> list[Use]:
    """The held-out inputs: every run is judged on each, and so is what it started from."""
    return [Use(Draw(seed=0, epoch=0, step=0, index=index), 1 + len(runs)) for index in range(len(samples))]
