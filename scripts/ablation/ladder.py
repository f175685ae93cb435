"""The memory ladder of a study: what its step needs as each technique that saves memory is added to those before."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ablation.baseline import is_baseline
from ablation.hardware import Card
from ablation.preflight import DIGITS, unsupported
from ablation.study import Strategy, Study, Train
from ablation.sweep import Run, expand
from ablation.systems import system_class
from ablation.vram.predict import Predictor, shape
from ablation.vram.trace import Untraceable

ALL = Train(full=["*"])
HALF = ("bf16", "fp16")
PLAIN = {"gradient_checkpointing": False, "host": None, "distributed": "ddp", "offload": False, "optimizer": "adamw",
         "trained_weights": "fp32", "frozen_weights": None, "fused_backward": False}  # fmt: skip


class Rung(NamedTuple):
    """A technique, and the baseline's step with it and all before it."""

    technique: str
    run: Run


def ladder(study: Study, name: str, card: Card, traces: Path | None = None, workers: int = 1) -> list[dict[str, Any]]:
    """A row a rung, with its predicted memory on ``card``. ``runs``: those of the study that take the same step, by id.

    A rung that cannot be traced has a ``reason`` in place of numbers.
    """
    runs = expand(study, name)
    found = [rung for rung in rungs(study, runs) if unsupported(rung.run, card) is None]
    predictor = Predictor([rung.run for rung in found], card, traces)
    predictor.traces.prepare(workers)
    return [_row(rung, runs, predictor) for rung in found]


def rungs(study: Study, runs: Sequence[Run]) -> Iterator[Rung]:
    """From full fine-tuning in fp32 on one GPU to all that the study's system and its GPUs allow.

    The batch and all settings are those of the baseline, or of the first run.
    """
    base = next((run for run in runs if is_baseline(study, run)), runs[0])
    light = next((run for run in [base, *runs] if run.strategy.train != ALL), None)
    alone = base.with_axes(gpus=1, rank=None, precision="fp32")
    several = len(system_class(study.system).objectives) > 1
    run = _with(alone, **PLAIN, train=_most(runs, light))
    run = _with(run, backward="summed") if several else run
    yield Rung("full fine-tuning in fp32", run)

    half = base.axes["precision"] if base.axes["precision"] in HALF else HALF[0]
    run = run.with_axes(precision=half)
    yield Rung(f"+ {half}", run)
    if light:
        run = _with(run.with_axes(rank=light.rank), train=light.strategy.train)
        what = f"LoRA of rank {light.rank}" if light.rank else "a part of the network trained"
        yield Rung(f"+ {what} (as in {light.axes['strategy']})", run)
    if several:
        run = _with(run, backward="each")
        yield Rung("+ a backward pass for each objective", run)
    run = _with(run, gradient_checkpointing=True)
    yield Rung("+ gradient checkpointing", run)

    gpus = max(run.axes["gpus"] for run in runs)
    if gpus > 1:
        run = run.with_axes(gpus=gpus)
        yield Rung(f"+ {gpus} GPUs, DDP", run)
        yield Rung("+ ZeRO-2", _with(run, distributed="zero2"))
        yield Rung("+ ZeRO-3", _with(run, distributed="zero3"))
        yield Rung("+ optimizer in host memory", _with(run, distributed="zero3", offload=True))


def _most(runs: Sequence[Run], light: Run | None) -> Train:
    """What full fine-tuning means in the study: what another of its strategies trains in full, or everything."""
    full = (run.strategy.train for run in runs if run.strategy.train.full is not None)
    return next((train for train in full if light is None or train != light.strategy.train), ALL)


def _with(run: Run, **changes: Any) -> Run:
    strategy = Strategy.model_validate({**run.strategy.model_dump(), **changes})
    return replace(run, strategy=strategy)


def _row(rung: Rung, runs: Sequence[Run], predictor: Predictor) -> dict[str, Any]:
    axes = {axis: rung.run.axes[axis] for axis in ("batch", "accumulation", "precision", "gpus")}
    row = {"technique": rung.technique, **axes}
    try:
        found = predictor(rung.run)
    except Untraceable as error:
        return {**row, "reason": str(error).splitlines()[0]}
    total, trained = predictor.parameters(rung.run)
    numbers = {
        "predicted_allocated_gib": found.allocated,
        "predicted_reserved_gib": found.reserved,
        "predicted_gib": found.total,
    }
    return {
        **row,
        "total_params": total,
        "trainable_params": trained,
        **{name: round(value, DIGITS) for name, value in numbers.items()},
        "memory_verdict": found.verdict,
        "runs": " ".join(run.id for run in runs if shape(run) == shape(rung.run)),
        "reason": "",
    }
