"""The plan of a study: for every run, before any job, what it would train, what memory it needs, and whether it can run.

Verdicts: ``fits``, ``tight`` (within the predictor's margin of the card's memory), ``oom``, and ``invalid`` (it cannot run).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablation.hardware import Card
from ablation.prefix.saving import Saving
from ablation.settings import Settings
from ablation.study import Study
from ablation.sweep import Run, all_axes, expand, one_per_cell
from ablation.systems import load_system, system_class
from ablation.vram.margin import MARGIN
from ablation.vram.predict import Prediction, Predictor
from ablation.vram.trace import Untraceable
from ablation.waiting import followed

DIGITS = 4

Row = dict[str, Any]


class Plan(NamedTuple):
    """A row for each run, a row for each cell on each card, and what is missing on this machine (each with what to do)."""

    runs: list[Row]
    cards: list[Row]
    missing: list[str]


def plan(
    study: Study,
    name: str,
    card: Card,
    traces: Path | None = None,
    workers: int = 1,
    cards: Mapping[str, Card] | None = None,
) -> Plan:
    """What can run on ``card``, and what memory would allow on ``cards``. Needs no GPU, data or weights.

    ``traces``: a folder that keeps traced steps for the next plan. ``workers``: processes that trace.
    """
    runs = expand(study, name)
    missing = {key: load_system(settings).missing() for key, settings in _distinct(runs).items()}
    predictor = Predictor(runs, card, traces)
    predictor.traces.prepare(workers)
    saving = Saving(runs, traces)
    rows = [
        {"run": run.id, **all_axes(study, run), **_row(run, card, predictor, missing[id(run.settings)]), **saving(run)}
        for run in followed(runs, "predicting memory", len(runs), "run")
    ]
    elsewhere = [row for run in one_per_cell(runs) for row in _elsewhere(run, predictor, cards or {})]
    return Plan(rows, elsewhere, list(dict.fromkeys(line for lines in missing.values() for line in lines)))


def _elsewhere(run: Run, predictor: Predictor, cards: Mapping[str, Card]) -> Iterator[Row]:
    """A row for each card: whether its memory would do for the cell of ``run``. None for a step that cannot be traced."""
    try:
        prediction, verdicts = predictor(run), predictor.verdicts(run, cards)
    except Untraceable:
        return
    for name, card in cards.items():
        sizes = {"predicted_gib": round(prediction.total, DIGITS), "budget_gib": card.usable_gib}
        yield {"cell": run.cell_id, **run.cell, "card": name, **sizes, "verdict": verdicts[name]}


def _distinct(runs: Sequence[Run]) -> dict[int, Settings]:
    return {id(run.settings): run.settings for run in runs}


def _row(run: Run, card: Card, predictor: Predictor, missing: list[str]) -> Row:
    prediction, untraceable = None, None
    try:
        prediction = predictor(run)
    except Untraceable as error:
        untraceable = str(error)
    lacks = "; ".join(line.splitlines()[0] for line in missing)
    impossible = lacks or unsupported(run, card) or untraceable
    recomputed = predictor.settled(run).strategy.gradient_checkpointing if prediction else None
    verdict, reason = ("invalid", impossible) if impossible else (prediction.verdict, _words(prediction, card))
    if run.left_to_card and not impossible:
        reason = f"{reason}, with {recomputed or 'no'} blocks recomputed"
    return {
        "effective_batch": run.effective_batch,
        **(_columns(prediction, predictor.parameters(run)) if prediction else {}),
        "recomputed": recomputed,
        "budget_gib": card.usable_gib,
        "verdict": verdict,
        "reason": reason,
    }


def _columns(prediction: Prediction, parameters: tuple[int, int]) -> Row:
    """What a plan says of memory, in GiB. The parts sum to ``predicted_gib``."""
    numbers = {
        "predicted_allocated_gib": prediction.allocated,
        "predicted_reserved_gib": prediction.reserved,
        "predicted_gib": prediction.total,
        **{f"{part}_gib": size for part, size in prediction.parts.items()},
    }
    return {
        "total_params": parameters[0],
        "trainable_params": parameters[1],
        **{name: round(value, DIGITS) for name, value in numbers.items()},
        "peak_phase": prediction.phase,
        "memory_verdict": prediction.verdict,
    }


def unsupported(run: Run, card: Card) -> str | None:
    """Why ``run`` cannot run on ``card``, whatever its data and weights; None if it can."""
    if run.axes["precision"] not in card.precisions:
        return f"{card.name} does not train in {run.axes['precision']} (it does in {', '.join(card.precisions)})"
    method = run.strategy.distributed
    if method != "ddp" and run.axes["precision"] == "fp16":
        return f"{method} with fp16 is not supported; train in bf16 or fp32"
    if method != "ddp" and run.settings.training.ema:
        return f"{method} keeps the weights in parts, of which no average (training.ema) is made; use ddp"
    return next(_too_lean(run), None)


def _too_lean(run: Run) -> Iterator[str]:
    """What the strategy's ways to save memory cannot go with."""
    strategy, axes, training = run.strategy, run.axes, run.settings.training
    if strategy.fused_backward:
        passes = 1 if strategy.backward == "summed" else len(system_class(run.settings.system).objectives)
        if training.clip is not None:
            yield f"fused_backward has no norm of all gradients, which training.clip: {training.clip:g} needs; set it to null"
        if axes["accumulation"] > 1:
            yield f"fused_backward steps after each backward pass; accumulation {axes['accumulation']} has several, set it to 1"
        if passes > 1:
            yield f"fused_backward steps after each backward pass; {passes} objectives have one each, set backward: summed"
        if axes["precision"] == "fp16":
            yield "fused_backward steps before fp16's loss scaling can tell that a gradient overflowed; train in bf16 or fp32"
    if strategy.trained_weights == "bf16" and axes["precision"] != "bf16":
        yield f"trained_weights: bf16 are used as they are; train in bf16, not {axes['precision']}"
    if strategy.trained_weights == "bf16" and training.ema:
        yield "trained_weights: bf16 has no average (training.ema), which would take fp32 for each weight; use fp32"
    alone = {
        "fused_backward": strategy.fused_backward,
        "trained_weights: bf16": strategy.trained_weights == "bf16",
        "frozen_weights": strategy.frozen_weights is not None,
        "host": strategy.host is not None,
    }
    for name in (name for name, is_set in alone.items() if is_set and axes["gpus"] > 1):
        yield f"{name} is for one GPU, not {axes['gpus']}"


def _words(prediction: Prediction, card: Card) -> str:
    need = f"needs {prediction.total:.2f} of {card.usable_gib:g} GiB, at the peak of the {prediction.phase} pass"
    if prediction.verdict == "tight":
        return f"{need}; 95 % of predictions are off by less than {MARGIN:.1%}"
    weights = prediction.parts["frozen_weights"] + prediction.parts["trained_weights"]
    if prediction.verdict == "oom" and weights > card.usable_gib:
        return f"its weights alone take {weights:.2f} of {card.usable_gib:g} GiB"
    return need
