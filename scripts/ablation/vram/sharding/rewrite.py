"""Edits of a trace: storages taken out, put in, or freed early."""

import numpy as np
from numpy.typing import NDArray

from ablation.vram.trace import KIND, Mark, Trace


class Rewrite:
    """Edits of ``trace``, gathered until :meth:`trace` makes them.

    They happen before the event of ``trace`` whose number they name, in the order in which they were asked for. ``n - 0.5``
    is before event n too, but still in the phase that ends there: what begins at event n comes after it.
    """

    def __init__(self, trace: Trace):
        self.old = trace
        self._sizes, self._kinds = trace.sizes.tolist(), trace.kinds.tolist()
        self._places: list[float] = []
        self._events: list[int] = []
        self._removed = np.zeros(len(trace.sizes), bool)
        self._freed = np.zeros(len(trace.sizes), bool)

    def remove(self, storages: NDArray) -> None:
        """As if they had never been."""
        self._removed[storages] = True

    def allocate(self, place: float, size: int, kind: str) -> int:
        """A new storage of ``size`` bytes; returns its number."""
        self._sizes.append(size)
        self._kinds.append(KIND[kind])
        self._add(place, len(self._sizes))
        return len(self._sizes) - 1

    def free(self, place: float, storage: int) -> None:
        """Free a new storage, or one of the old trace before that did."""
        if storage < len(self._freed):
            self._freed[storage] = True
        self._add(place, -storage - 1)

    def use(self, place: float, size: int, kind: str) -> None:
        """A storage that is freed at once."""
        self.free(place, self.allocate(place, size, kind))

    def _add(self, place: float, event: int) -> None:
        self._places.append(place)
        self._events.append(event)

    def trace(self) -> Trace:
        """The trace with all edits made; storages are numbered anew."""
        old = self.old.events
        storages = np.abs(old) - 1
        kept = ~self._removed[storages] & ~(self._freed[storages] & (old < 0))
        places = np.concatenate([np.array(self._places), np.flatnonzero(kept)])
        order = np.lexsort((np.arange(len(places)) >= len(self._places), places))
        events, places = np.concatenate([np.array(self._events, np.int64), old[kept]])[order], places[order]
        used, numbers = np.unique(np.abs(events) - 1, return_inverse=True)
        return Trace(
            (np.sign(events) * (numbers + 1)).astype(np.int32),
            np.array(self._sizes, np.int64)[used],
            np.array(self._kinds, np.uint8)[used],
            tuple(Mark(int(np.searchsorted(places, mark.event)), mark.phase) for mark in self.old.marks),
            int(np.searchsorted(places, self.old.existing)),
        )
