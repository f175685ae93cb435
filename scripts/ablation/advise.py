"""Which batch, accumulation, strategy and precision fit a card at one effective batch, and which of them is fastest."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isqrt

from ablation.canonical import canonical
from ablation.errors import UserError
from ablation.hardware import Card
from ablation.speeds import Speed
from ablation.sweep import Run
from ablation.vram.budget import allocator_gib
from ablation.vram.margin import MARGIN
from ablation.vram.predict import Prediction, Predictor

CHOSEN = {"batch", "accumulation", "gpus", "seed"}  # axes that the advice chooses, or that no memory depends on


@dataclass(frozen=True)
class Option:
    """One way to train, and what it is predicted to need of each GPU."""

    run: Run
    prediction: Prediction


@dataclass(frozen=True)
class Miss:
    """The smallest batch of a strategy, rank and precision that does not fit, and ``last``, the largest."""

    smallest: Option
    last: int
    open_end: bool
    """Whether no larger batch is possible at this effective batch."""


@dataclass(frozen=True)
class Advice:
    """What fits, best first, each with its speed, and where each strategy, rank and precision ends."""

    options: list[tuple[Option, Speed]]
    misses: list[Miss]


def candidates(runs: Iterable[Run], card: Card, effective_batch: int, gpus: int) -> list[list[Run]]:
    """For each strategy, rank and precision (and further axis) of ``runs``: every batch that makes ``effective_batch``.

    Raises :class:`UserError` when the GPUs do not divide it, or the card trains in none of the precisions.
    """
    if effective_batch % gpus:
        below = effective_batch // gpus * gpus
        near = " or ".join(str(size) for size in (below, below + gpus) if size)
        raise UserError(f"--effective-batch {effective_batch} cannot be shared evenly by {gpus} GPUs; nearest: {near}")
    a_gpu = effective_batch // gpus
    cells = {canonical({axis: run.axes[axis] for axis in run.axes if axis not in CHOSEN}): run for run in reversed(list(runs))}
    supported = [run for run in reversed(cells.values()) if run.axes["precision"] in card.precisions]
    if not supported:
        swept = ", ".join(sorted({run.axes["precision"] for run in cells.values()}))
        raise UserError(f"{card.name} trains in {', '.join(card.precisions)}; the study sweeps {swept} only")
    small = [batch for batch in range(1, isqrt(a_gpu) + 1) if a_gpu % batch == 0]
    batches = sorted({*small, *(a_gpu // batch for batch in small)})
    return [[run.with_axes(batch=b, accumulation=a_gpu // b, gpus=gpus) for b in batches] for run in supported]


def fitting(group: Sequence[Run], predict: Callable[[Run], Prediction], budget: float) -> tuple[list[Option], Miss | None]:
    """Of runs that differ in their batch, smallest first: those that fit, and where the others begin.

    ``budget``: what PyTorch's allocator may hold, in GiB. A larger batch than one that does not fit is not predicted.
    """
    found, missed, last = [], None, 0
    for run in group:
        if missed is not None and _hopeless(missed, run, budget):
            last = run.axes["batch"]
            continue
        option = Option(run, predict(run))
        if option.prediction.verdict != "oom":
            found.append(option)
        else:
            missed, last = missed or option, run.axes["batch"]
    return found, missed and Miss(missed, last, last == group[-1].axes["batch"])


def _hopeless(missed: Option, run: Run, budget: float) -> bool:
    """Whether ``run``, of a larger batch, needs too much as well: all but a step of one pass, whose gradients wait for none."""
    waiting = missed.prediction.parts["gradients"] if run.axes["accumulation"] == 1 else 0.0
    return missed.prediction.allocated - waiting > budget * (1 + MARGIN)


def advise(
    groups: Sequence[Sequence[Run]],
    predictor: Predictor,
    speeds: Callable[[list[Run]], list[Speed]],
) -> Advice:
    """What of ``groups`` (see :func:`candidates`) fits the predictor's card.

    Sorted: what fits before what is tight, then by speed (where it is a tie, fewer forward passes a step: the same work in
    fewer pieces), then by head-room; groups of speeds that cannot be compared stay apart.
    """
    ends = [fitting(group, predictor, allocator_gib(predictor.card)) for group in groups]
    options = [option for found, _ in ends for option in found]
    rated = list(zip(options, speeds([option.run for option in options]), strict=True))
    order = list(dict.fromkeys(speed.group for _, speed in rated))
    rated.sort(key=lambda pair: (order.index(pair[1].group), *_rank(*pair)))
    return Advice(rated, [miss for _, miss in ends if miss])


def _rank(option: Option, speed: Speed) -> tuple:
    tight = option.prediction.verdict == "tight"
    return tight, -round(speed.relative, 6), option.run.axes["accumulation"], option.prediction.total


def closest(misses: Sequence[Miss]) -> Option:
    """What comes closest to fitting."""
    return min((miss.smallest for miss in misses), key=lambda option: option.prediction.total)
