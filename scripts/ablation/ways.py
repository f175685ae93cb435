"""The ways to an effective batch on a study's card: what of batch x accumulation the advisor finds to fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ablation.advise import Advice, advise, candidates, closest
from ablation.errors import UserError
from ablation.expression import Expression
from ablation.hardware import Card
from ablation.recommended import Recommendation, Recommended
from ablation.speeds import Measured, speeds
from ablation.study import Study
from ablation.sweep import Run
from ablation.vram.predict import Predictor
from ablation.vram.trace import Untraceable
from ablation.waiting import followed

Split = tuple[int, int]  # batch, accumulation


@dataclass(frozen=True)
class Ways:
    """What the advisor says of one strategy at ``effective_batch``.

    ``refused``: what the study does to reach it, and the card does not hold. ``reached``: whether it has that effective batch.
    """

    strategy: str
    advice: Advice
    refused: list[Split]
    reached: bool

    @property
    def fitting(self) -> dict[Split, Run]:
        """What fits, the best first."""
        return {_split(option.run): option.run for option, _ in self.advice.options}

    def in_words(self, card: Card) -> str:
        """``32 x 1 does not fit, 4 x 8 does (21.30 of 23.64 GiB)``; empty where the study is well as it is."""
        if self.reached and not self.refused:
            return ""
        do = "does" if len(self.refused) == 1 else "do"
        lead = ", ".join(f"{batch} x {passes}" for batch, passes in self.refused) + f" {do} not fit, " if self.refused else ""
        best = self.advice.options[0][0] if self.advice.options else closest(self.advice.misses)
        size = f"{best.prediction.total:.2f} of {card.usable_gib:g} GiB"
        if not self.advice.options:
            return f"nothing fits, {_way(best.run)} needs {size}"
        tight = ", tight" if best.prediction.verdict == "tight" else ""
        return f"{lead}{_way(best.run)} {'does' if lead else 'fits'} ({size}{tight})"


@dataclass(frozen=True)
class Advisor:
    """Advises on the effective batch of a study's ``runs``. ``traces`` and ``probe``: a folder, and the measured speeds."""

    study: Study
    runs: Sequence[Run]
    recommended: Recommended
    card: Card
    traces: Path | None
    probe: Path

    def __call__(self, wanted: Recommendation) -> tuple[str, dict[str, Any]]:
        """Advice on the effective batch, and the change of the study; empty where it is as wanted and all of it fits."""
        try:
            runs = self._examples()
            examples = followed(runs, "predicting memory", len(runs), "strategy")
            found = [self._of(run, wanted.nearest(run.effective_batch)) for run in examples]
        except (UserError, Untraceable) as error:
            return str(error).removeprefix("--"), {}
        words = {ways.strategy: text for ways in found if (text := ways.in_words(self.card))}
        if not words:
            return "", {}
        told = [f"{name}: {text}" for name, text in words.items()] if len(found) > 1 else list(words.values())
        return f"on {self.card.name}, {'; '.join(told)}", self._change(found)

    def _examples(self) -> list[Run]:
        """For each strategy the run that stands for it: in the recommended precision, of the highest rank."""
        wanted = self.recommended.parameters.get("precision")
        runs = [run for run in self.runs if run.axes["precision"] in self.card.precisions] or self.runs
        ranked = sorted(runs, key=lambda run: (wanted is not None and wanted.holds(run.axes["precision"]), run.rank or 0))
        best = {run.axes["strategy"]: run for run in ranked}
        return [best[strategy] for strategy in dict.fromkeys(run.axes["strategy"] for run in runs)]

    def _of(self, example: Run, effective_batch: int) -> Ways:
        groups = candidates([example], self.card, effective_batch, example.axes["gpus"])
        predictor = Predictor(groups[0], self.card, self.traces)
        # Without a probe, speeds are estimated from operations a sample, which are the same for all batches.
        rate = partial(speeds, measured=Measured(self.probe, self.card, groups[0]), flops=lambda _: 1.0)
        advice = advise(groups, predictor, rate)
        alike = [run for run in self.runs if all(run.axes[a] == example.axes[a] for a in ("strategy", "rank", "precision"))]
        splits = {_split(run) for run in alike if run.effective_batch == effective_batch}
        refused = splits - {_split(option.run) for option, _ in advice.options}
        reached = all(run.effective_batch == effective_batch for run in alike)
        return Ways(example.axes["strategy"], advice, sorted(refused), reached)

    def _change(self, found: Sequence[Ways]) -> dict[str, Any]:
        """The split that is best for the strategy it suits least, of those that fit at all; and the constraints it needs."""
        fitting = [ways.fitting for ways in found if ways.fitting]
        common = set.intersection(*map(set, fitting)) if fitting else set()
        if not common:
            return {}
        batch, accumulation = min(common, key=lambda split: max(list(order).index(split) for order in fitting))
        run = fitting[0][batch, accumulation]
        swept = {axis: self.study.value_of(axis) for axis in self.study.sweep.model_extra or {}}
        cell = {**swept, **run.axes, "rank": run.rank or self.study.sweep.rank[0]}
        met = [text for text in self.study.keep if Expression(text)(cell)]
        keep = {"keep": [*met, f"batch * accumulation * gpus == {run.effective_batch}"]} if met != self.study.keep else {}
        return {"sweep": {"batch": batch, "accumulation": accumulation}, **keep}


def _split(run: Run) -> Split:
    return run.axes["batch"], run.axes["accumulation"]


def _way(run: Run) -> str:
    gpus = run.axes["gpus"]
    return f"{run.axes['batch']} x {run.axes['accumulation']}{f' x {gpus} GPUs' if gpus > 1 else ''}"
