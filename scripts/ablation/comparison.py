"""A study against the recommended configuration, parameter by parameter, and what to write to come nearer to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

from ablation.canonical import canonical
from ablation.cli import aligned
from ablation.hardware import Card
from ablation.recommended import DERIVED, OF_STRATEGY, Recommendation, Recommended, Unknown
from ablation.study import AXES, Study
from ablation.sweep import Run
from ablation.yamlfile import in_line, merge

# same: all runs are as recommended; swept: some are, for the parameter is an axis; differs: none is, or none of a strategy;
# open: the study does not decide it; absent: it has no meaning in this study, such as the rate of a strategy that it lacks.
Verdict = Literal["same", "swept", "differs", "open", "absent"]
NOTHING = "-"
MEANINGLESS = object()
LENGTHS = {"steps", "epochs"}  # of which a study gives one

Values = list[tuple[str, Any]]  # a pair of strategy and value for each run
ToDo = tuple[str, dict[str, Any]]  # words, and what to lay over the study
OnCard = Callable[[Recommendation], ToDo]


@dataclass(frozen=True)
class Row:
    """One parameter: the study's values, the recommended ones, and what there is to do."""

    parameter: str
    yours: str
    recommended: str
    verdict: Verdict
    advice: str
    change: dict[str, Any]
    """What to lay over the study; empty where nothing is to be changed, or words alone can say it."""
    why: str

    @property
    def to_do(self) -> str:
        """Advice and change on one line."""
        return "; ".join(filter(None, (self.advice, self.change and in_line(self.change))))

    def as_record(self, recommended: Recommended) -> dict[str, str]:
        """A row of ``recommended.csv``."""
        return {
            "parameter": self.parameter,
            "yours": self.yours,
            "recommended": self.recommended,
            "verdict": self.verdict,
            "advice": self.to_do,
            "why": self.why,
            "source": "; ".join(filter(None, (recommended.source, recommended.conditions))),
        }


def compare(study: Study, runs: Sequence[Run], recommended: Recommended, card: Card, on_card: OnCard) -> list[Row]:
    """A row for each recommended parameter.

    ``on_card``: what the card has to say of the effective batch, and the change of the study (``ablation.ways.Advisor``).
    """
    comparison = _Comparison(study, runs, recommended, card)
    rows = [comparison.row(name) for name in recommended.parameters]
    for number, row in enumerate(rows):
        if row.parameter == "effective_batch":
            advice, change = on_card(recommended.parameters[row.parameter])
            rows[number] = replace(row, advice=advice, change=change)
    return rows


class _Comparison:
    def __init__(self, study: Study, runs: Sequence[Run], recommended: Recommended, card: Card):
        self.study, self.runs, self.recommended, self.card = study, runs, recommended, card
        self.swept = set(study.sweep.model_extra or {})

    def row(self, name: str) -> Row:
        wanted = self.recommended.parameters[name]
        values = [(run.axes["strategy"], value_of(run, name)) for run in self.runs]
        values = [(strategy, value) for strategy, value in values if value is not MEANINGLESS]
        verdict = _verdict(name, wanted, values)
        advice, change = self._to_do(name, wanted, values, verdict)
        return Row(name, _listed(name, values), in_words(wanted), verdict, advice, change, wanted.why)

    def _to_do(self, name: str, wanted: Recommendation, values: Values, verdict: Verdict) -> ToDo:
        """Advice in words, and the change that makes the study as recommended."""
        if name == "precision" and not any(precision in self.card.precisions for precision in wanted.named):
            return f"{self.card.name} does not train in {_or(wanted.named)}; it does in {_or(self.card.precisions)}", {}
        if verdict not in ("differs", "open") or name == "effective_batch":
            return "", {}
        if name == "warmup_steps":
            return self._warmup(wanted)
        if name in LENGTHS:
            now = values[0][1]
            others = {other: None for other in LENGTHS - {name} if isinstance(now, Unknown)}
            return "", merge(self._written(f"training.{name}", wanted.nearest(now)), {"training": others} if others else {})
        if name == "strategy" and not set(wanted.named) & set(self.study.strategies):
            return f"the study has no strategy {_or(wanted.named)}", {}
        if name in OF_STRATEGY:
            wrong = {strategy: now[0] for strategy, now in _by_strategy(values).items() if not any(map(wanted.holds, now))}
            changes = [self._written(f"strategies.{strategy}.{name}", wanted.nearest(now)) for strategy, now in wrong.items()]
            return "", reduce(merge, changes)
        better = wanted.nearest(values[0][1])
        return "", {"sweep": {name: better}} if name in AXES else self._written(name, better)

    def _warmup(self, wanted: Recommendation) -> ToDo:
        """The share of all steps that is as many steps as recommended, of a run that is as long as recommended."""
        length = self.recommended.parameters.get("steps")
        lengths = {length.nearest(now) if length else now for now in map(DERIVED["steps"], self.runs)}
        if len(lengths) > 1 or isinstance(steps := lengths.pop(), Unknown):
            return "a share of all steps; how many these are, training.steps would say", {}
        target = wanted.nearest(round(self.runs[0].settings.training.warmup * steps))
        if target >= steps:
            return f"a run of {steps} steps is shorter than the warm-up should be", {}
        return f"{target} of {steps} steps", self._written("training.warmup", float(f"{target / steps:.6g}"))

    def _written(self, name: str, value: Any) -> dict[str, Any]:
        """``training.warmup`` as the study's YAML has it: below ``sweep`` where it is an axis, else nested."""
        if name in self.swept:
            return {"sweep": {name: value}}
        for step in reversed(name.split(".")):
            value = {step: value}
        return value


def value_of(run: Run, name: str) -> Any:
    """What a run has for a parameter; MEANINGLESS where it has nothing of the kind."""
    if name in DERIVED:
        return DERIVED[name](run)
    if name in AXES:
        return MEANINGLESS if run.axes[name] is None else run.axes[name]
    if name in OF_STRATEGY:
        return getattr(run.strategy, name)
    first, *steps = name.split(".")
    if first == "lora" and run.strategy.train.lora is None:
        return MEANINGLESS
    if first == "strategies":
        strategy, *steps = steps
        value = run.strategy if strategy == run.axes["strategy"] else None
    else:
        value = getattr(run.settings, first)
    for step in steps:
        if value is None:
            return MEANINGLESS
        value = value.get(step) if isinstance(value, dict) else getattr(value, step)
    return MEANINGLESS if value is None and first == "strategies" else _plain(value)


def _plain(value: Any) -> Any:
    """As YAML would have it."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _verdict(name: str, wanted: Recommendation, values: Values) -> Verdict:
    if not values:
        return "absent"
    by_strategy = _by_strategy(values).values() if name in OF_STRATEGY else [[value for _, value in values]]
    if all(wanted.holds(value) for _, value in values):
        return "same"
    if all(any(map(wanted.holds, now)) for now in by_strategy):
        return "swept"
    return "open" if any(isinstance(value, Unknown) for _, value in values) else "differs"


def _by_strategy(values: Values) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for strategy, value in values:
        found.setdefault(strategy, []).append(value)
    return found


def _listed(name: str, values: Values) -> str:
    """The values there are, each with its strategies where it is they that differ."""
    strategies: dict[str, dict[str, None]] = {}
    for strategy, value in values:
        strategies.setdefault(shown(value), {})[strategy] = None
    if name in OF_STRATEGY and len(strategies) > 1:
        return ", ".join(f"{value} ({', '.join(names)})" for value, names in strategies.items())
    return ", ".join(strategies) or NOTHING


def in_words(wanted: Recommendation) -> str:
    """``256``, ``bf16 or fp16``, ``5000 to 10000``, ``at least 128``."""
    if wanted.at_least is not None and wanted.at_most is not None:
        return f"{shown(wanted.at_least)} to {shown(wanted.at_most)}"
    limit = "at least " if wanted.at_least is not None else "at most " if wanted.at_most is not None else ""
    return limit + _or(wanted.named)


def _or(values: Sequence[Any]) -> str:
    return " or ".join(shown(value) for value in values)


def shown(value: Any) -> str:
    """A value as a person would write it in YAML."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else canonical(value)


def as_text(rows: Sequence[Row], name: str, recommended: Recommended, scale: str) -> str:
    """The rows that there is something to do about, and which agree, for the console."""
    different = [row for row in rows if row.verdict in ("differs", "open") or row.to_do]
    others = [row for row in rows if row not in different]
    lines = [f"against the recommended configuration {name} ({recommended.source})"]
    if scale == "demo":
        lines.append("  it is for the released size; this is the demo, which differs on purpose")
    if different:
        head = ("parameter", "yours", "recommended", "what to write")
        lines += aligned([head, *(line for row in different for line in _lines(row))], range(4))
    lines.append(f"  {sum(row.verdict == 'same' for row in others)} {'others' if different else 'parameters'} agree")
    for verdict, words in (("swept", "one of the values swept"), ("absent", "without meaning in this study")):
        if found := [row.parameter for row in others if row.verdict == verdict]:
            lines.append(f"  {words}: {', '.join(found)}")
    return "\n".join(lines)


def _lines(row: Row) -> list[tuple[str, str, str, str]]:
    """A line for each thing to do."""
    first, *further = row.to_do.split("; ")
    return [(row.parameter, row.yours, row.recommended, first), *(("", "", "", text) for text in further)]
