"""What a trace's phases hold: backward passes with their gradients, optimizer steps."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ablation.vram.trace import KIND, Trace


@dataclass(frozen=True)
class Gradient:
    """A parameter's gradient comes with event number ``event``: its bytes, and its storage if it stays there."""

    event: int
    size: int
    storage: int | None


@dataclass(frozen=True)
class Backward:
    """A backward pass up to event number ``end``, and the gradients in the order in which they come."""

    end: int
    gradients: list[Gradient]


def of_kind(trace: Trace, kind: str) -> NDArray:
    """The storages of a kind."""
    return np.flatnonzero(trace.kinds == KIND[kind])


def phases(trace: Trace, name: str) -> list[tuple[int, int]]:
    """First event of each phase ``name``, and the first one after it."""
    ends = [*(mark.event for mark in trace.marks[1:]), len(trace.events)]
    return [(mark.event, end) for mark, end in zip(trace.marks, ends, strict=True) if mark.phase == name]


def backward_passes(trace: Trace) -> Iterator[Backward]:
    """Every backward pass.

    Gradients that are added to earlier ones leave no storage of their own. In a pass that makes none which stay, they are
    taken to come as in the pass before.
    """
    order: list[tuple[int, int]] = []
    for start, end in phases(trace, "backward"):
        allocations = start + np.flatnonzero(trace.events[start:end] > 0)
        storages = trace.events[allocations] - 1
        usual = trace.kinds[storages] != KIND["workspace"]
        allocations, storages = allocations[usual], storages[usual]
        born = np.flatnonzero(trace.kinds[storages] == KIND["gradients"])
        if len(born):
            order = [(int(rank), int(trace.sizes[storages[rank]])) for rank in born]
            yield Backward(end, [Gradient(int(allocations[i]), size, int(storages[i])) for i, size in order])
        else:
            last = len(allocations) - 1
            yield Backward(end, [Gradient(int(allocations[min(i, last)]), size, None) for i, size in order if last >= 0])


def gathered_passes(trace: Trace) -> Iterator[Backward]:
    """The backward passes of each optimizer step as one, at whose end all its gradients come."""
    passes = list(backward_passes(trace))
    for step, _ in phases(trace, "optimizer"):
        own = [passes.pop(0) for one in list(passes) if one.end <= step]
        kept = [gradient for one in own for gradient in one.gradients if gradient.storage is not None]
        last = own[-1].end
        yield Backward(last, [replace(gradient, event=last - 2) for gradient in kept])


def temporaries_of(trace: Trace, start: int, end: int) -> NDArray:
    """Storages that are allocated and freed in a phase."""
    part = trace.events[start:end]
    return np.intersect1d(part[part > 0], -part[part < 0]) - 1
