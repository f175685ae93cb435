"""The largest batch of each cell that fits its card, all searches advancing together in rounds of probes."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablation.canonical import canonical
from ablation.errors import UserError
from ablation.hardware import Card
from ablation.probe.cell import Cell, at_batch, unprobeable
from ablation.probe.prober import Prober, Record
from ablation.probe.search import search
from ablation.probe.table import measurements
from ablation.sweep import Run
from ablation.waiting import followed

LIMIT = 4096  # no search goes further
TRIAL_STEPS = 3  # the optimizer's state and what the first step leaves behind are there from the second on
SEARCHED = ("batch", "accumulation")
Guess = Callable[[Run, Card], int]  # the largest batch of a run on a card, as far as one knows


@dataclass
class _Search:
    """One search: where it is, and what it has seen."""

    run: Run
    guess: int
    steps: Generator[int, bool, int]
    batch: int | None  # to try next; None when it has ended
    largest: int = 0
    outcome: str = ""
    reason: str | None = None
    records: dict[int, Record] = field(default_factory=dict)

    def learn(self, record: Record) -> None:
        """Take the outcome of the trial of ``batch``."""
        self.records[self.batch] = record
        if record["outcome"] == "failed":
            self.batch, self.outcome, self.reason = None, "failed", record["reason"]
            return
        try:
            self.batch = self.steps.send(record["outcome"] == "completed")
        except StopIteration as end:
            self.batch, self.largest, self.outcome = None, end.value, "found" if end.value else "oom"
            self.reason = f"larger ones than {LIMIT} were not tried" if end.value == LIMIT else None


def largest_batches(runs: Sequence[Run], card: Card, device: str, prober: Prober, guess: Guess) -> list[dict[str, Any]]:
    """A row for each cell without its batch and accumulation: the largest batch, and what it takes.

    A cell that accumulates is tried with two forward passes a step: more take no more memory.
    """
    cells = _one_per_group(runs)
    searches = [_begin(run, card, guess) for run in followed(cells, "predicting where to begin", len(cells), "cell")]
    number = 0
    while waiting := {_trial(found, card, device).name: found for found in searches if found.batch is not None}:
        number += 1
        records = prober.measure([_trial(found, card, device) for found in waiting.values()], f"round {number}")
        for name, found in waiting.items():
            found.learn(records[name])
    return [_row(found) for found in searches]


def _one_per_group(runs: Sequence[Run]) -> list[Run]:
    """Of the runs that differ in seed, batch and accumulation only, the one that accumulates most."""
    groups: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: -run.axes["accumulation"]):
        groups.setdefault(canonical(_fixed(run)), run)
    order = [canonical(_fixed(run)) for run in runs]
    return [groups[key] for key in dict.fromkeys(order)]


def _fixed(run: Run) -> dict[str, Any]:
    return {axis: value for axis, value in run.cell.items() if axis not in SEARCHED}


def _begin(run: Run, card: Card, guess: Guess) -> _Search:
    if reason := unprobeable(run, card):
        return _Search(run, 0, search(1, 1), None, outcome="invalid", reason=reason)
    try:
        first = guess(run, card)
    except UserError:  # it cannot be predicted: the search starts from the bottom
        first = 0
    steps = search(first, LIMIT)
    return _Search(run, first, steps, next(steps))


def _trial(found: _Search, card: Card, device: str) -> Cell:
    run = at_batch(found.run, found.batch, min(found.run.axes["accumulation"], 2))
    return Cell(run, card, device, TRIAL_STEPS)


def _row(found: _Search) -> dict[str, Any]:
    measured = measurements(found.records.get(found.largest, {}))
    return {
        **_fixed(found.run),
        "outcome": found.outcome,
        "reason": found.reason,
        "largest_batch": found.largest if found.outcome in ("found", "oom") else None,
        "guess": found.guess or None,
        "trials": len(found.records),
        **{name: measured[name] for name in ("peak_allocated_gib", "peak_reserved_gib", "peak_phase", "device")},
    }
