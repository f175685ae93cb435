"""A traced step, replayed through the allocator's model: how much memory, when, and what it is."""

from dataclasses import dataclass

import numpy as np

from ablation.vram.allocator import Block, CachingAllocator, OutOfMemory
from ablation.vram.trace import KIND, Trace

LATER_STEPS = 1  # after the first, which makes the optimizer's state; further ones change nothing


@dataclass(frozen=True)
class Peak:
    """Bytes: the most that was allocated and reserved, the phase of the former, and what was live then."""

    allocated: int
    reserved: int
    phase: str
    parts: dict[str, int]


def replay(trace: Trace, limit: int | None = None) -> Peak:
    """Load, a first step and some later ones. Raises :class:`OutOfMemory` when they need more than ``limit`` bytes."""
    allocator = CachingAllocator(limit)
    live: dict[int, Block] = {}
    sizes = trace.sizes.tolist()
    later = [later_step(trace).tolist()] * LATER_STEPS if repeats(trace) else []
    for part in (trace.events.tolist(), *later):
        for event in part:
            if event > 0:
                live[event] = allocator.allocate(sizes[event - 1])
            else:
                allocator.free(live.pop(-event))
    phase, parts = at_peak(trace)
    return Peak(allocator.peak_allocated, allocator.peak_reserved, phase, parts)


def fits(trace: Trace, limit: int) -> bool:
    """Whether the step runs on an allocator that may reserve ``limit`` bytes."""
    try:
        replay(trace, limit)
    except OutOfMemory:
        return False
    return True


def later_step(trace: Trace) -> "np.ndarray":
    """The events of any later step: those of the first, without what outlives it."""
    return _step(trace)[~outliving(trace)]


def at_peak(trace: Trace) -> tuple[str, dict[str, int]]:
    """Phase and parts in bytes of the largest moment of a later step."""
    step, outlives = _step(trace), outliving(trace) & repeats(trace)
    last = int(np.where(outlives, 0, np.sign(step) * trace.sizes[np.abs(step) - 1]).cumsum().argmax())
    until = np.concatenate([trace.events[: trace.existing], step[outlives], step[: last + 1]])
    alive = np.zeros(len(trace.sizes), bool)
    alive[until[until > 0] - 1] = True
    alive[-until[until < 0] - 1] = False
    parts = {name: int(trace.sizes[alive & (trace.kinds == number)].sum()) for name, number in KIND.items()}
    phases = [mark.phase for mark in trace.marks if mark.event - trace.existing <= last]
    return phases[-1] if phases else "forward", parts


def allocated_peak(trace: Trace) -> int:
    """Bytes of live storages at the largest moment of a later step, without any rounding."""
    return sum(at_peak(trace)[1].values())


def repeats(trace: Trace) -> bool:
    """Whether later steps are to be made from the first; else the trace has them."""
    return sum(mark.phase == "optimizer" for mark in trace.marks) < 2


def _step(trace: Trace) -> "np.ndarray":
    return trace.events[trace.existing :]


def outliving(trace: Trace) -> "np.ndarray":
    """For each event of the step, whether its storage is made in it and not freed."""
    step = _step(trace)
    freed = np.zeros(len(trace.sizes), bool)
    freed[-step[step < 0] - 1] = True
    return (step > 0) & ~freed[np.abs(step) - 1]
