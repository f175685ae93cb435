"""The steps that a GPU is measured on, the most informative first, and what is predicted for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from ablation.hardware import Card
from ablation.study import Study
from ablation.sweep import Run, expand
from ablation.vram.allocator import Block, CachingAllocator, OutOfMemory
from ablation.vram.budget import GIB, allocator_gib
from ablation.vram.predict import verdict
from ablation.vram.replay import allocated_peak, later_step, outliving, replay
from ablation.vram.step import trace_step, trace_step_on_cpu
from ablation.vram.trace import Trace

ACCUMULATION = 2  # the second pass runs beside the gradients of the first
ALL_PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


VGGT, SHAPE, ROBOT, LAYOUT, IMAGES = "vggt-eth3d", "hunyuan3d-4090", "rdt-batch", "kolors-3x4090", "dit-images"


@dataclass(frozen=True)
class Setting:
    """One step to measure. ``rank``: None where the strategy has none. ``card``: a smaller card to be held to; None: no."""

    study: str
    strategy: str
    rank: int | None
    batch: int
    precision: str
    checkpointing: bool
    card: str | None = None

    @property
    def name(self) -> str:
        """Readable and unique within a suite."""
        rank = "" if self.rank is None else f"-r{self.rank}"
        checkpointing = "ckpt" if self.checkpointing else "full"
        words = f"{self.study.split('-')[0]}-{self.strategy}{rank}-b{self.batch}-{self.precision}-{checkpointing}"
        return words if self.card is None else f"{words}@{self.card}"

    def run(self, study: Study) -> Run:
        """The run of ``study``, which is the named one, that takes this step; not compiled, which no prediction is of."""
        run = next(run for run in expand(study, self.study) if run.axes["strategy"] == self.strategy)
        strategy = run.strategy.model_copy(update={"gradient_checkpointing": self.checkpointing})
        axes = {"rank": self.rank, "batch": self.batch, "precision": self.precision, "accumulation": ACCUMULATION, "gpus": 1}
        training = run.settings.training.model_copy(update={"compile": False})
        settings = run.settings.model_copy(update={"training": training})
        return replace(run.with_axes(**axes), strategy=strategy, settings=settings)


FIRST = (
    Setting(VGGT, "A", 16, 1, "bf16", False),
    Setting(SHAPE, "C", 16, 1, "bf16", True),
    Setting(ROBOT, "lora", 16, 4, "bf16", False),
    Setting(LAYOUT, "A", None, 1, "bf16", False),
    Setting(IMAGES, "full", None, 4, "bf16", False),
    Setting(VGGT, "C", 16, 1, "bf16", True),
    Setting(SHAPE, "B", 16, 1, "bf16", False),
    Setting(ROBOT, "full", None, 4, "bf16", False),
    Setting(LAYOUT, "baseline", None, 1, "bf16", False),  # the graphs of three objectives at once
    Setting(VGGT, "A", 16, 2, "bf16", False, "rtx4090"),  # predicted to run out of memory
    Setting(SHAPE, "A", None, 1, "bf16", False),
    Setting(VGGT, "B", 16, 1, "bf16", True),
    Setting(ROBOT, "lora", 16, 16, "bf16", False),
    Setting(LAYOUT, "B", None, 1, "bf16", True, "rtx4090"),
    Setting(IMAGES, "full", None, 16, "fp16", False),
    Setting(VGGT, "A", 16, 1, "bf16", False, "rtx4090"),
    Setting(VGGT, "C", 16, 1, "bf16", False),
    Setting(ROBOT, "full", None, 32, "bf16", False),
    Setting(SHAPE, "B", 16, 2, "bf16", False),
    Setting(VGGT, "A", 16, 1, "fp32", False),
    Setting(VGGT, "C", 16, 1, "fp32", True),
    Setting(SHAPE, "C", 16, 4, "bf16", True),
    Setting(VGGT, "A", 16, 2, "bf16", False),
    Setting(VGGT, "C", 64, 2, "bf16", True),
    Setting(VGGT, "B", 16, 2, "bf16", True, "rtx5090"),  # predicted to be tight
    Setting(VGGT, "C", 16, 2, "bf16", True, "rtx5090"),  # predicted to miss by little
    Setting(VGGT, "C", 16, 1, "bf16", True, "rtx4090"),
    Setting(VGGT, "A", 4, 1, "bf16", False),
    Setting(VGGT, "C", 16, 1, "fp16", True),
    Setting(VGGT, "C", 16, 1, "tf32", True),
    Setting(VGGT, "C", 64, 1, "fp32", True, "rtx4090"),
)
REST = product((2, 4, 1), ("bf16", "fp32"), (4, 64, 16), "CAB", (True, False))  # the factors, the last one changing fastest
FULL = tuple(dict.fromkeys([*FIRST, *(Setting(VGGT, s, r, b, p, c) for b, p, r, s, c in REST)]))
DEMO = (
    Setting(VGGT, "A", 4, 1, "fp32", False),
    Setting(VGGT, "C", 16, 2, "fp32", True),
    Setting(SHAPE, "B", 4, 2, "fp32", False),
    Setting(ROBOT, "full", None, 2, "fp32", False),
    Setting(LAYOUT, "baseline", None, 2, "fp32", False),
    Setting(LAYOUT, "B", None, 2, "fp32", True),
    Setting(IMAGES, "full", None, 8, "fp32", False),
)


def own_card(device: torch.device) -> Card:
    """The GPU ``device`` as a card: all that it has. A CPU has no memory of its own and counts as one of 1 GiB."""
    fields: dict[str, Any] = {"precisions": ALL_PRECISIONS, "fp8": False, "source": "the device itself"}
    if device.type != "cuda":
        return Card(name="CPU", memory_gib=1, usable_gib=1, compute_capability="8.9", **fields)
    found = torch.cuda.get_device_properties(device)
    size, capability = found.total_memory / GIB, f"{found.major}.{found.minor}"
    return Card(name=found.name, memory_gib=size, usable_gib=size, compute_capability=capability, **fields)


def predict(run: Run, card: Card, device: torch.device, capped: bool) -> dict[str, Any]:
    """What a step of ``run`` needs on ``device``: peaks in GiB, by phase too, and the verdict for ``card``.

    ``capped``: the allocator is held to the card, and gives back what it only keeps before it fails. On a CPU, where nothing
    is reserved, the peak of live tensors.
    """
    if device.type != "cuda":
        return {"allocated_gib": allocated_peak(trace_step_on_cpu(run)) / GIB}
    trace, budget = trace_step(run, card.compute_capability), allocator_gib(card) * GIB
    peak = replay(trace)
    found = verdict(trace, peak, budget)
    limit = int(budget) if capped and found != "oom" else None
    phases = phase_peaks(trace, limit)
    return {
        "allocated_gib": max(peaks["allocated_gib"] for peaks in phases.values()),
        "reserved_gib": max(peaks["reserved_gib"] for peaks in phases.values()),
        "phases": phases,
        "parts": {name: size / GIB for name, size in peak.parts.items()},
        "verdict": found,
    }


def phase_peaks(trace: Trace, limit: int | None = None) -> dict[str, dict[str, float]]:
    """The most that is allocated and reserved in each phase of the first two steps, in GiB, within ``limit`` bytes.

    A replay that ends for want of memory has the peaks until then.
    """
    allocator, live, peaks = CachingAllocator(limit), {}, {}
    sizes = trace.sizes.tolist()
    try:
        for phase, event in _phased(trace):
            _take(event, allocator, live, sizes)
            seen = peaks.setdefault(phase, {"allocated_gib": 0.0, "reserved_gib": 0.0})
            seen["allocated_gib"] = max(seen["allocated_gib"], allocator.allocated / GIB)
            seen["reserved_gib"] = max(seen["reserved_gib"], allocator.reserved / GIB)
    except OutOfMemory:
        pass
    peaks.pop("load", None)
    return peaks


def _phased(trace: Trace) -> Iterator[tuple[str, int]]:
    """Every event of load, the first step and the second one, with its phase."""
    starts = [mark.event for mark in trace.marks]
    phases = ["load"] * len(trace.events)
    for mark, end in zip(trace.marks, [*starts[1:], len(phases)], strict=True):
        phases[mark.event : end] = [mark.phase] * (end - mark.event)
    yield from zip(phases, trace.events.tolist(), strict=True)
    stays = outliving(trace).tolist()
    again = [phase for phase, stay in zip(phases[trace.existing :], stays, strict=True) if not stay]
    yield from zip(again, later_step(trace).tolist(), strict=True)


def _take(event: int, allocator: CachingAllocator, live: dict[int, Block], sizes: Sequence[int]) -> None:
    if event > 0:
        live[event] = allocator.allocate(sizes[event - 1])
    else:
        allocator.free(live.pop(-event))
