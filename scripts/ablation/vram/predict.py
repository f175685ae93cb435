"""Will it fit: the peak memory of a run on a card, before anything is submitted.

The trainer's step is traced on fake tensors and replayed through a model of PyTorch's allocator. Reserved memory and the
CUDA context together are what a card must have.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablation.hardware import Card
from ablation.sweep import Run
from ablation.vram.budget import CONTEXT_GIB, allocator_gib
from ablation.vram.margin import MARGIN
from ablation.vram.replay import Peak, fits, replay
from ablation.vram.sharding.rank import sharding_of
from ablation.vram.trace import Trace
from ablation.vram.traces import Traces, family

GIB = 2**30

Verdict = Literal["fits", "tight", "oom"]


@dataclass(frozen=True)
class Prediction:
    """Peak memory of a run's training step on one GPU, in GiB.

    ``allocated``: tensors; ``reserved``: what PyTorch's allocator takes for them on a card that is large enough. ``parts`` are
    what makes up ``total`` at the peak of ``phase``.
    """

    allocated: float
    reserved: float
    phase: str
    parts: dict[str, float]
    verdict: Verdict

    @property
    def total(self) -> float:
        """What the card must have: reserved memory and the CUDA context."""
        return self.reserved + CONTEXT_GIB


class Predictor:
    """Predictions for ``runs`` on ``card``; ``folder`` keeps traces from one process to the next."""

    def __init__(self, runs: Iterable[Run], card: Card, folder: Path | None = None):
        self.card = card
        self.traces = Traces(runs, card.compute_capability, folder)
        self._peaks: dict[tuple, Peak] = {}
        self._known: dict[tuple, Prediction] = {}
        self._verdicts: dict[tuple, dict[str, Verdict]] = {}

    def __call__(self, run: Run) -> Prediction:
        """The prediction for one run. Raises :class:`UserError` when its step cannot be traced."""
        if (key := shape(run)) not in self._known:
            trace, peak = self._traced(run)
            self._known[key] = Prediction(
                allocated=peak.allocated / GIB,
                reserved=peak.reserved / GIB,
                phase=peak.phase,
                parts=_parts(peak),
                verdict=verdict(trace, peak, allocator_gib(self.card) * GIB),
            )
        return self._known[key]

    def verdicts(self, run: Run, cards: Mapping[str, Card]) -> dict[str, Verdict]:
        """Whether the run's step fits other cards.

        The step itself is that of the predictor's card: all that depends on a card is cuBLAS's workspace, 48 MiB at most.
        """
        if (key := shape(run)) not in self._verdicts:
            trace, peak = self._traced(run)
            self._verdicts[key] = {name: verdict(trace, peak, allocator_gib(card) * GIB) for name, card in cards.items()}
        return self._verdicts[key]

    def _traced(self, run: Run) -> tuple[Trace, Peak]:
        trace = self.traces[run]
        if (key := shape(run)) not in self._peaks:
            self._peaks[key] = replay(trace)
        return trace, self._peaks[key]

    def parameters(self, run: Run) -> tuple[int, int]:
        """All parameters of the run's network, and those it trains."""
        return self.traces[run].parameters


def shape(run: Run) -> tuple:
    """All that the memory of a run depends on."""
    return family(run), run.axes["batch"], run.rank, sharding_of(run)


def verdict(trace: Trace, peak: Peak, budget: float) -> Verdict:
    """``fits`` with the margin to spare; ``oom`` even with the margin on top; ``tight`` between the two."""
    if peak.reserved <= budget * (1 - MARGIN):
        return "fits"
    if peak.allocated > budget * (1 + MARGIN):
        return "oom"
    if fits(trace, int(budget * (1 - MARGIN))):  # an allocator short of memory gives back what it only keeps
        return "fits"
    return "tight" if fits(trace, int(budget * (1 + MARGIN))) else "oom"


def largest_batch(run: Run, card: Card, folder: Path | None = None, most: int = 4096) -> int:
    """The largest batch of ``run`` that is predicted to fit ``card`` (``tight`` included); 0 where none does."""
    sizes = [1, 2, 3, 4]  # three of more than one: all others follow from two of them

    def holds(batch: int) -> bool:
        return predictor(run.with_axes(batch=batch)).verdict != "oom"

    predictor = Predictor((run.with_axes(batch=size) for size in (*sizes, most)), card, folder)
    if not holds(1):
        return 0
    low, high = 1, 2
    while high <= most and holds(high):
        low, high = high, min(2 * high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _parts(peak: Peak) -> dict[str, float]:
    """GiB of each kind at the peak, what the allocator keeps beyond them, and the context: they sum to the total."""
    slack = peak.reserved - sum(peak.parts.values())
    return {**{name: size / GIB for name, size in peak.parts.items()}, "slack": slack / GIB, "context": CONTEXT_GIB}
