"""The life of every storage during a step, recorded while the step runs: on fake tensors, so that it costs no memory.

Fake tensors live on the CPU and take CUDA's place. What CUDA does differently is in :mod:`ablation.vram.cuda`.
"""

import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.autograd.graph import _engine_run_backward
from torch.utils._python_dispatch import TorchDispatchMode

from ablation.errors import UserError
from ablation.vram.hidden import HIDDEN

KINDS = (
    "frozen_weights",
    "trained_weights",
    "gradients",
    "optimizer",
    "activations",
    "temporaries",
    "batch",
    "workspace",
    "communication",
)
KIND = {name: number for number, name in enumerate(KINDS)}
MICRO_STEPS = 2  # of a traced step: the second accumulates into the gradients of the first, as all later ones do

aten = torch.ops.aten
GEMMS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}
DRAWS = {aten.rand.default, aten.randint.default, aten.randint.low}
COMPARISONS = {aten.gt.Scalar, aten.ge.Scalar, aten.lt.Scalar, aten.le.Scalar}
ENGINE = _engine_run_backward.__code__
ENGINE_REFERENCES = 4  # of a gradient that nobody but autograd's engine holds, seen from a dispatch mode


class Untraceable(UserError):
    """A step that cannot be followed on fake tensors."""


class Mark(NamedTuple):
    """``phase`` begins before event number ``event``."""

    event: int
    phase: str


class Call(NamedTuple):
    """Before event number ``event`` a module is entered or left, in a forward or a backward pass."""

    event: int
    module: int
    enters: bool
    forward: bool


class Modules(NamedTuple):
    """The storages of each module's own parameters, the whole model first, and the modules' calls in order."""

    parameters: list[set[int]]
    calls: list[Call]


@dataclass(frozen=True)
class Trace:
    """Allocations and frees in order.

    ``events``: i + 1 allocates storage i, -(i + 1) frees it. ``sizes``: bytes of each storage. ``kinds``: its number in
    :data:`KINDS`. The first ``existing`` events are what was there before the step. ``parameters``: all, and the trained ones.
    ``modules``: where the memory depends on which module is under way.
    """

    events: NDArray[np.int32]
    sizes: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    marks: tuple[Mark, ...]
    existing: int
    parameters: tuple[int, int] = (0, 0)
    modules: Modules | None = None


class Tracer(TorchDispatchMode):
    """While active, records every storage from its first appearance to its last reference.

    ``workspace``: bytes that PyTorch gives a cuBLAS handle at its first use. Backward passes run on a thread of their own,
    with a handle of its own.
    """

    def __init__(self, workspace: int = 0):
        super().__init__()
        self._workspace = workspace
        self._threads: set[bool] = set()
        self._backward = False
        self._known: dict[int, tuple[int, weakref.ref]] = {}  # storage -> its number
        self._events: list[int] = []
        self._sizes: list[int] = []
        self._kinds: list[int] = []
        self._marks: list[Mark] = []
        self._existing = 0
        self._recording = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled; the wrapper costs more than the recording

    def add(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Record what is there before the step."""
        for tensor in tensors:
            self.label([tensor], kind)
        self._existing = len(self._events)

    def label(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Say what kind of memory the storages of ``tensors`` are."""
        for tensor in tensors:
            self._kinds[self.number(tensor)] = KIND[kind]

    def mark(self, phase: str) -> None:
        """``phase`` begins; in that named ``backward`` autograd's engine runs."""
        self._marks.append(Mark(len(self._events), phase))
        self._backward = phase == "backward"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not recorded."""
        self._recording = False
        try:
            yield
        finally:
            self._recording = True

    @property
    def now(self) -> int:
        """Number of the event that comes next."""
        return len(self._events)

    def trace(self) -> Trace:
        """What was recorded so far."""
        events = in_order(np.array(self._events, np.int32), [mark.event for mark in self._marks])
        kinds = np.array(self._kinds, np.uint8)
        kinds[saved_for_backward(events, kinds, self._marks)] = KIND["activations"]
        return Trace(events, np.array(self._sizes, np.int64), kinds, tuple(self._marks), self._existing)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not self._recording:
            return function(*args, **(kwargs or {}))
        if function is aten.add.Tensor and sums_gradients(args):
            return aten.add_.Tensor(*args)
        if function in CONTROL and (known := CONTROL[function](function, args, kwargs or {})) is not None:
            return known
        if function in GEMMS and self._backward not in self._threads:
            self._threads.add(self._backward)
            self._events.append(self._new(self._workspace, KIND["workspace"]) + 1)
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.number(out)
        elif isinstance(out, (tuple, list)):
            for leaf in out:
                if isinstance(leaf, Tensor):
                    self.number(leaf)
        if function in HIDDEN:
            self._use(HIDDEN[function](args))
        return out

    def number(self, tensor: Tensor) -> int:
        """Number of the tensor's storage, which is recorded if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if (known := self._known.get(key)) is not None:
            return known[0]
        number = self._new(storage.nbytes(), KIND["temporaries"])
        self._events.append(number + 1)
        self._known[key] = number, weakref.ref(storage, lambda _: self._gone(key))
        return number

    def _new(self, size: int, kind: int) -> int:
        self._sizes.append(size)
        self._kinds.append(kind)
        return len(self._sizes) - 1

    def _gone(self, key: int) -> None:
        self._events.append(-self._known.pop(key)[0] - 1)

    def _use(self, sizes: list[int]) -> None:
        """What a kernel takes for itself and gives back when it ends."""
        numbers = [self._new(size, KIND["temporaries"]) + 1 for size in sizes]
        self._events += [*numbers, *(-number for number in reversed(numbers))]


def in_order(events: NDArray[np.int32], marks: Sequence[int] = ()) -> NDArray[np.int32]:
    """Frees that follow each other, sorted: autocast drops its casts in the order of their addresses, which is no order.

    None is moved over one of ``marks``, positions at which something else begins.
    """
    begins = (events > 0) | np.r_[True, events[:-1] > 0][: len(events)]  # an allocation, or a series of frees
    begins[[mark for mark in marks if mark < len(events)]] = True
    run = np.cumsum(begins)
    return events[np.lexsort((-events, run))]


def saved_for_backward(events: NDArray, kinds: NDArray, marks: Sequence[Mark]) -> NDArray[np.bool_]:
    """Which storages a forward pass leaves behind for the backward pass."""
    saved = np.zeros(len(kinds), bool)
    for mark, after in pairwise(marks):
        if (mark.phase, after.phase) == ("forward", "backward"):
            part = events[mark.event : after.event]
            saved[part[part > 0] - 1] = True
            saved[-part[part < 0] - 1] = False
    return saved & (kinds == KIND["temporaries"])


def _draw(function, args, kwargs):
    """A single random number is drawn to decide what the host does next: it is a real one."""
    shape = args[-1]
    if isinstance(shape, (list, tuple)) and len(shape) == 1 and shape[0] == 1:
        with unset_fake_temporarily():
            return function(*args, **kwargs)
    return None


def _compare(function, args, kwargs):
    """With such a number."""
    if isinstance(args[0], FakeTensor):
        return None
    with unset_fake_temporarily():
        return function(*args, **kwargs)


def _read_back(function, args, kwargs):
    """A flag that the host reads asks whether something is wrong: it is not."""
    if not isinstance(args[0], FakeTensor):
        with unset_fake_temporarily():
            return function(*args)
    return False if args[0].dtype == torch.bool else None


def _select(function, args, kwargs):
    """What a mask selects is not known: all of it, at the most."""
    x, indices = args
    if any(index is not None and index.dtype == torch.bool for index in indices):
        whole = [_everything(index) for index in indices]
        return function(x, [part for parts in whole for part in parts])
    return None


def _everything(index: Tensor | None) -> list[Tensor | None]:
    if index is None or index.dtype != torch.bool:
        return [index]
    return [index.new_empty(index.numel(), dtype=torch.int64) for _ in range(index.dim())]


CONTROL = {
    **dict.fromkeys(DRAWS, _draw),
    **dict.fromkeys(COMPARISONS, _compare),
    aten._local_scalar_dense.default: _read_back,
    aten.index.Tensor: _select,
}


def sums_gradients(args: tuple) -> bool:
    """Whether autograd's engine adds to a gradient that it alone holds; to be asked by a mode's ``__torch_dispatch__``.

    It does so in place, but not while a dispatch mode is active (``can_accumulate_inplace`` in torch's input_buffer.cpp).
    """
    if not isinstance(args[0], Tensor) or not isinstance(args[1], Tensor):
        return False
    return (
        sys._getframe(2).f_code is ENGINE
        and args[0]._use_count() <= ENGINE_REFERENCES
        and args[0].shape == args[1].shape
        and args[0].dtype == args[1].dtype
    )
