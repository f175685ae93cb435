"""Claims held against a plan or against finished runs: confirmed, refuted, or not comparable and why."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ablation.claims.model import Claim
from ablation.claims.quantities import Quantity, Row, loss_at, quantities_of
from ablation.claims.words import in_words, span
from ablation.hardware import Card
from ablation.objective import ENDED
from ablation.study import Study
from ablation.sweep import Run

CONFIRMED, REFUTED, NOT_COMPARABLE = "confirmed", "refuted", "not comparable"
TO_SPARE = 0.1  # of a card's memory; what is published as tight may leave so much
NOT_FULL = "the network of this scale is not the published one; run with scale=full"

Cell = Sequence[Run]  # a run for each seed
History = Callable[[str], Sequence[Row]]


class Finding(NamedTuple):
    """What became of a claim."""

    verdict: str
    reason: str = ""
    ours: str = ""
    basis: str = ""


class Evidence(NamedTuple):
    """Our number for one cell, and what it is: counted, predicted or measured."""

    value: float
    basis: str


class NotComparable(Exception):
    """The message is the reason."""


class Judge:
    """Verdicts on the claims of ``study``.

    ``runs``: all of them. ``table``: the row of each run by its id, of the plan or as collected. ``on_cards``: for a cell and
    a card, the row of what is predicted. ``history``: the optimizer steps of a run, none where it has not run.
    """

    def __init__(
        self,
        study: Study,
        runs: Sequence[Run],
        table: Mapping[str, Row],
        on_cards: Mapping[tuple[str, str], Row],
        cards: Mapping[str, Card],
        history: History = lambda run: (),
    ):
        self.study, self.table, self.on_cards, self.cards, self.history = study, table, on_cards, cards, history
        self.quantities = quantities_of(study.settings)
        self.cells: dict[str, list[Run]] = {}
        for run in runs:
            self.cells.setdefault(run.cell_id, []).append(run)

    def __call__(self, claim: Claim) -> Finding:
        """The verdict on one claim."""
        try:
            if claim.unchecked is not None:
                raise NotComparable(claim.unchecked)
            if claim.quantity in (facts := self.study.settings.facts()):
                return _judged(claim, [_fact(claim, facts[claim.quantity])], "")
            if self.study.scale != "full":
                raise NotComparable(NOT_FULL)
            return self._outcome(claim) if claim.outcome else self._number(claim)
        except NotComparable as why:
            return Finding(NOT_COMPARABLE, str(why))

    def _number(self, claim: Claim) -> Finding:
        quantity = self.quantities[claim.quantity]
        found, reasons = [], []
        for cell in self._matching(claim.where):
            try:
                found.append(self._evidence(claim, quantity, cell))
            except NotComparable as why:
                reasons.append(why)
        if not found:
            raise reasons[0]
        return _judged(claim, found, "" if claim.against else quantity.unit)

    def _evidence(self, claim: Claim, quantity: Quantity, cell: Cell) -> Evidence:
        ours = self._numbers(claim, quantity, cell)
        if claim.against is None:
            if quantity.timed:
                self._check_device(cell, claim.card)
            return next(Evidence(value, basis) for basis, value in ours.items())
        if claim.against == "pretrained":
            other, theirs = cell, self._numbers(claim, self.quantities[f"pretrained.{claim.quantity}"], cell)
        else:
            other = self._partner(cell, claim.against)
            theirs = self._numbers(claim, quantity, other)
        if quantity.timed and len(self._devices(cell) | self._devices(other)) > 1:
            raise NotComparable("its two cells were measured on different devices")
        for basis in (basis for basis in ours if theirs.get(basis)):
            return Evidence(ours[basis] / theirs[basis], basis)
        raise NotComparable("one of its two cells is measured, the other predicted")

    def _numbers(self, claim: Claim, quantity: Quantity, cell: Cell) -> dict[str, float]:
        """Basis -> the mean over the seeds; the best basis first."""
        done = [run for run in cell if self.table[run.id].get("outcome") == "completed"]
        read = quantity.measured or (lambda row: None)
        values = [loss_at(self.history(run.id), claim.at) if claim.at else read(self.table[run.id]) for run in done]
        known = [value for value in values if value is not None]
        if quantity.timed and known:
            self._check_timed(done)
        found = {"measured": sum(known) / len(known)} if known else {}
        if quantity.planned and (planned := quantity.planned(self.table[cell[0].id])) is not None:
            found[quantity.basis] = planned
        if not found:
            raise NotComparable(self._nothing(claim, quantity, done))
        return found

    def _nothing(self, claim: Claim, quantity: Quantity, done: Cell) -> str:
        if quantity.planned:
            return "the plan could not predict the cell"
        if done:
            return "the training was shorter" if claim.at else "its runs did not measure it"
        return "needs finished runs"

    def _check_timed(self, runs: Cell) -> None:
        if any(self.table[run.id].get("device") != "cuda" for run in runs):
            raise NotComparable("measured on a CPU, whose time says nothing of a GPU's")
        if any((self.table[run.id].get("time.packed") or 1) > 1 for run in runs):  # a gap is NaN, which is not more
            raise NotComparable("measured beside others on one card")

    def _devices(self, cell: Cell) -> set[str]:
        rows = (self.table[run.id] for run in cell)
        return {row["gpu"] for row in rows if isinstance(row.get("gpu"), str)}

    def _check_device(self, cell: Cell, card: str | None) -> None:
        if card is None:
            raise NotComparable("a time is of one card, and none was published")
        if (names := self._devices(cell)) != {self.cards[card].name}:
            raise NotComparable(f"measured on {', '.join(sorted(names)) or 'no GPU'}, published for {self.cards[card].name}")

    def _outcome(self, claim: Claim) -> Finding:
        found = [self._fate(claim, cell) for cell in self._matching(claim.where)]
        held = [_as_said(claim.outcome, fate, share) for fate, share, *_ in found]
        bases = " and ".join(dict.fromkeys(basis for *_, basis in found))
        ours = "; ".join(dict.fromkeys(text for _, _, text, _ in found))
        if False in held:
            return Finding(REFUTED, _some(held), ours, bases)
        if None in held:
            reason = "within the predictor's margin of the card's memory: a run on it decides"
            return Finding(NOT_COMPARABLE, reason, ours, bases)
        return Finding(CONFIRMED, "", ours, bases)

    def _fate(self, claim: Claim, cell: Cell) -> tuple[str, float, str, str]:
        """What becomes of a cell on the claim's card, the share of it that is needed, the same in words, and its basis."""
        row = self.on_cards.get((cell[0].cell_id, claim.card))
        if row is None:
            raise NotComparable("the plan could not predict the cell")
        needed, size = row["predicted_gib"], row["budget_gib"]
        ended = self._ended(claim.card, cell)
        fate, basis = (ended, "measured") if ended else (row["verdict"], "predicted")
        return fate, needed / size, f"{fate}: {needed:.1f} of {size:g} GiB", basis

    def _ended(self, card: str, cell: Cell) -> str | None:
        """What became of the cell's runs on a GPU held to the memory of ``card``; None where there was none."""
        rows = [self.table[run.id] for run in cell]
        ended = [row["outcome"] for row in rows if row.get("device") == "cuda" and row.get("memory.card") == card]
        if "oom" in ended:
            return "oom"
        return "fits" if {*ENDED} & {*ended} else None

    def _matching(self, where: Mapping[str, Any]) -> list[Cell]:
        found = [cell for cell in self.cells.values() if _is(cell[0], where)]
        if not found:
            raise NotComparable(f"the study has no cell with {in_words(where)}")
        return found

    def _partner(self, cell: Cell, against: Mapping[str, Any]) -> Cell:
        """The cell that differs in ``against`` alone."""
        found = [other for other in self.cells.values() if _is(other[0], against) and _alike(cell[0], other[0], against)]
        if len(found) != 1:
            raise NotComparable(f"the study has {len(found) or 'no'} cells with {in_words(against)} to hold it against")
        return found[0]


def _fact(claim: Claim, fact: Callable[..., float | None]) -> Evidence:
    value = fact(**claim.where)
    if value is None:
        raise NotComparable("the data is not there")
    return Evidence(value, "counted")


def _judged(claim: Claim, found: Sequence[Evidence], unit: str) -> Finding:
    held = [claim.holds(each.value) for each in found]
    values = [each.value for each in found]
    ours = span(min(values), max(values), unit)
    basis = " and ".join(dict.fromkeys(each.basis for each in found))
    if all(held):
        return Finding(CONFIRMED, "", ours, basis)
    claimed = claim.claimed()
    off = span(*(value / claimed for value in (min(values), max(values))), "") if claimed else ""
    reason = "; ".join(text for text in (_some(held), f"{off} times what was published" if off else "") if text)
    return Finding(REFUTED, reason, ours, basis)


def _some(held: Sequence[bool | None]) -> str:
    holding = sum(each is True for each in held)
    return f"holds in {holding} of {len(held)} cells" if holding else ""


def _as_said(said: str, fate: str, share: float) -> bool | None:
    """Whether a cell's fate is what was said; None where the prediction is too near to tell."""
    if said == "tight":
        return fate == "tight" or (fate == "fits" and share >= 1 - TO_SPARE)
    return None if fate == "tight" else fate == said


def _is(run: Run, where: Mapping[str, Any]) -> bool:
    return all(_value(run, key) == value for key, value in where.items())


def _alike(one: Run, other: Run, but: Mapping[str, Any]) -> bool:
    """Whether two runs differ in the seed and in ``but`` alone; an axis without meaning for one of them does not count."""
    axes = {*one.axes, *other.axes} - {"seed", *but}
    return all(_value(one, axis) == _value(other, axis) or None in (_value(one, axis), _value(other, axis)) for axis in axes)


def _value(run: Run, key: str) -> Any:
    """The value of an axis or of a dotted setting; None where it has no meaning for the run."""
    if key in run.axes or key.startswith("strategies."):
        return run.axes.get(key)
    value: Any = run.settings
    for step in key.split("."):
        value = getattr(value, step)
    return value
