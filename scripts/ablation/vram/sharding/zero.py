"""The memory of one rank under DeepSpeed's ZeRO stages 2 and 3, after DeepSpeed 0.19.8 (``deepspeed/runtime/zero``).

AdamW's two moments and a master copy of the trained weights are fp32 and partitioned. Gradients are in the type of the
weights (engine.py, ``get_data_types``: ``grad_accum_dtype`` is not set). All sizes are bytes unless called elements.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ablation.vram.sharding.gathering import Coordinator, Limits
from ablation.vram.sharding.passes import Backward, Gradient, backward_passes, gathered_passes, of_kind, phases, temporaries_of
from ablation.vram.sharding.rewrite import Rewrite
from ablation.vram.trace import Modules

MASTER = 4  # bytes of an element of the master weights, their gradients and each moment: fp32
NORM = 8  # gradients' norms are taken in fp64 where the device has it (utils.py, ``get_norm_dtype``)
SUB_GROUP = 1_000_000_000  # ``sub_group_size``: elements of a partition that stage 3 updates at a time


class Zero:
    """What both stages share. ``bucket`` in elements; ``element``: bytes of an element of the weights."""

    def __init__(self, rewrite: Rewrite, gpus: int, offload: bool, bucket: int, element: int):
        self.rewrite, self.gpus, self.offload, self.bucket, self.element = rewrite, gpus, offload, bucket, element
        self.old, self.begin = rewrite.old, rewrite.old.existing - 0.5
        self.weights = of_kind(self.old, "trained_weights").tolist()
        self.elements = [int(self.old.sizes[w]) // element for w in self.weights]
        self.stateless = self._forget_optimizer()

    def _forget_optimizer(self) -> bool:
        """Take the single process's optimizer out; returns whether its state was not there before the first step."""
        states = of_kind(self.old, "optimizer")
        self.rewrite.remove(states)
        for start, end in phases(self.old, "optimizer"):
            self.rewrite.remove(temporaries_of(self.old, start, end))
        return not np.isin(self.old.events[: self.old.existing] - 1, states).any()

    def hold_master(self, elements: int) -> None:
        """The master weights of a partition, with the moments if these are there before the first step."""
        if not self.offload:
            self.rewrite.allocate(self.begin, MASTER * elements, "optimizer")
            if not self.stateless:
                self._make_moments(self.begin, elements)

    def _make_moments(self, place: float, elements: int) -> None:
        for _ in range(2):
            self.rewrite.allocate(place, MASTER * elements, "optimizer")

    def update(self, place: float, elements: int, largest: int, gradients: int | None) -> None:
        """``step`` of a partition; ``largest``: elements of its largest gradient; the storage ``gradients`` is freed."""
        if self.offload:
            return
        at_once = min(elements, SUB_GROUP)
        self.rewrite.use(place, NORM * largest, "temporaries")
        flat = self.rewrite.allocate(place, self.element * at_once, "gradients")
        if self.element != MASTER:
            narrow, flat = flat, self.rewrite.allocate(place, MASTER * at_once, "gradients")
            self.rewrite.free(place, narrow)
        if gradients is not None:
            self.rewrite.free(place, gradients)
        if self.stateless:
            self._make_moments(place, elements)
            self.stateless = False
        self.rewrite.free(place, flat)

    def fills(self, backward: Backward) -> Iterator[tuple[float, list[Gradient]]]:
        """Each time that the bucket is reduced: when, and what is in it.

        A gradient is copied into the bucket when it comes, and its own storage is freed; one that is larger keeps it.
        """
        filled: list[Gradient] = []
        for gradient in backward.gradients:
            place = gradient.event + 1
            if filled and sum(g.size for g in (*filled, gradient)) > self.bucket * self.element:
                yield from self._reduced(place, filled)
                filled = []
            filled.append(gradient)
            if gradient.storage is not None and not self._oversized(gradient):
                self.rewrite.free(place, gradient.storage)
        if filled:
            yield from self._reduced(backward.end - 0.5, filled)

    def _reduced(self, place: float, filled: list[Gradient]) -> Iterator[tuple[float, list[Gradient]]]:
        yield place, filled
        for gradient in filled:
            if gradient.storage is not None and self._oversized(gradient):
                self.rewrite.free(place, gradient.storage)

    def _oversized(self, gradient: Gradient) -> bool:
        return gradient.size > self.bucket * self.element


class Zero2(Zero):
    """``stage_1_and_2.py``: whole weights, partitioned gradients and optimizer."""

    def apply(self, gathered: bool) -> None:
        """Edit the trace. ``gathered``: the gradients of a step stay whole until its last pass has ended."""
        flat = _up(sum(self.elements), 2 * self.gpus)
        self.part = flat // self.gpus
        self.piece = min(max(self.elements), self.part)
        self._flatten(flat)
        self.hold_master(self.part)
        if self.offload:  # ``temp_grad_buffer_for_gpu_offload``
            self.rewrite.allocate(self.begin, self.element * max(self.elements), "communication")
        steps = [start for start, _ in phases(self.old, "optimizer")]
        passes = list(gathered_passes(self.old) if gathered else backward_passes(self.old))
        for start in steps:
            gradients = None
            while passes and passes[0].end <= start:
                gradients = self._reduce(passes.pop(0), gradients)
            self.update(start, self.part, self.piece, gradients)

    def _flatten(self, flat: int) -> None:
        self.rewrite.allocate(self.begin, self.element * flat, "trained_weights")
        for weight in self.weights:
            self.rewrite.free(self.begin, weight)

    def _reduce(self, backward: Backward, before: int | None) -> int | None:
        """A backward pass; returns the storage of the gradients of this rank's partition."""
        if not backward.gradients:
            return before
        size, first = self.bucket * self.element, backward.gradients[0].event + 1
        buckets = [self.rewrite.allocate(first, size, "communication") for _ in range(2)]
        own, begin = None, sum(self.elements)  # gradients come from the last parameter to the first
        for place, filled in self.fills(backward):
            end, begin = begin, begin - sum(g.size for g in filled) // self.element
            if (end - 1) // self.part > begin // self.part:  # ``allreduce_bucket`` joins parts of several partitions in a copy
                self.rewrite.use(place, sum(g.size for g in filled), "communication")
            if self.offload:
                self.rewrite.use(place, NORM * self.piece, "temporaries")
            elif own is None:  # ``grads_in_partition``
                own = self.rewrite.allocate(place, self.element * touched(self.elements, self.part), "gradients")
        for bucket in buckets:
            self.rewrite.free(backward.end - 0.5, bucket)
        if before is None or own is None:
            return own
        self.rewrite.free(backward.end - 0.5, own)
        return before


class Zero3(Zero):
    """``stage3.py``: weights, gradients and optimizer are partitioned."""

    def __init__(self, rewrite, gpus: int, offload: bool, bucket: int, element: int, modules: Modules, limits: Limits):
        super().__init__(rewrite, gpus, offload, bucket, element)
        self.modules, self.coordinator = modules, Coordinator(rewrite, modules, gpus, element, limits)

    def apply(self, gathered: bool) -> None:
        """Edit the trace. ``gathered``: the gradients of a step stay whole until its last pass has ended."""
        parts = [-(-n // self.gpus) for n in self.elements]
        self.part, self.piece = sum(parts), max(parts)
        self._partition()
        self.rewrite.allocate(self.begin, self.bucket * self.element, "communication")
        if not self.offload:  # ``grad_partitions_flat_buffer``
            self.rewrite.allocate(self.begin, self.element * self.part, "gradients")
        self.hold_master(self.part)
        for backward in gathered_passes(self.old) if gathered else backward_passes(self.old):
            self._reduce(backward)
        if self.gpus == 1:  # its part is the whole weight: nothing is gathered
            for start, _ in phases(self.old, "optimizer"):
                self.update(start, self.part, self.piece, None)
        else:
            for _, act in sorted(self._timeline(), key=lambda item: item[0]):
                act()

    def _partition(self) -> None:
        """The trained weights' parts lie in one storage (``lp_param_buffer``)."""
        trained = set(self.weights)
        self.rewrite.allocate(self.begin, self.element * self.part, "trained_weights")
        for weight in {*self.coordinator.every, *trained}:
            if weight not in trained:
                self.rewrite.allocate(self.begin, self.element * self.coordinator.part(weight), "frozen_weights")
            self.rewrite.free(self.begin, weight)

    def _reduce(self, backward: Backward) -> None:
        for place, filled in self.fills(backward):
            if len(filled) > 1:  # ``reduce_scatter_coalesced`` joins gradients in a copy
                self.rewrite.use(place, sum(g.size for g in filled), "communication")
            if self.offload:
                self.rewrite.use(place, NORM * self.piece, "temporaries")

    def _timeline(self) -> Iterator[tuple[float, Callable[[], None]]]:
        """What is gathered and given up, and before which event."""
        calls = self.modules.calls
        starts = [i for i, call in enumerate(calls) if call.module == 0 and call.enters and call.forward]
        for first, last in zip(starts, [*starts[1:], len(calls)], strict=True):
            order = [call.module for call in calls[first:last] if call.enters]
            yield calls[first].event, partial(self.coordinator.start, calls[first].event, order)
            for call in calls[first:last]:
                yield call.event, partial(self.coordinator.enter if call.enters else self.coordinator.leave, call)
        for _, end in phases(self.old, "backward"):
            yield end - 0.5, partial(self.coordinator.end_backward, end - 0.5)
        for start, _ in phases(self.old, "optimizer"):
            yield start, partial(self._step, start)

    def _step(self, place: float) -> None:
        self.coordinator.release_all(place)
        self.update(place, self.part, self.piece, None)
        self.coordinator.keep_small(place)


def touched(elements: list[int], part: int) -> int:
    """Elements of all parameters of which the partition with most of them holds any part; partitions have ``part``."""
    ends = np.cumsum(elements)
    starts = ends - np.array(elements)
    edges = range(0, int(ends[-1]), part)
    return max(int(np.array(elements)[(starts < edge + part) & (ends > edge)].sum()) for edge in edges)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
