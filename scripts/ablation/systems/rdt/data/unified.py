"""From a robot's recorded numbers to RDT's unified vector, and back."""

import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.robots import Vector
from ablation.systems.rdt.slots import SLOTS, UNIFIED, slots_of

SIZE = UNIFIED


class Mapping:
    """The numbers of a :class:`Vector` in the unified vector: ``slots`` [J], those of the columns in use; ``mask`` [128]."""

    def __init__(self, vector: Vector):
        found = slots_of(vector.slots)
        self.width, self.key = len(found), vector.key
        self.columns = [column for column, slot in enumerate(found) if slot is not None]
        self.slots = [slot for slot in found if slot is not None]
        ranges = {slot: vector.ranges[part] for part in vector.ranges for slot in SLOTS[part]}
        self._low, self._span = (
            np.array([value(*ranges.get(slot, (0.0, 1.0))) for slot in self.slots])
            for value in (lambda low, high: low, lambda low, high: high - low)
        )
        self.mask = np.zeros(SIZE, np.float32)
        self.mask[self.slots] = 1

    def to_unified(self, recorded: NDArray) -> NDArray[np.float32]:
        """Numbers [T, J] -> values [T, 128]; slots without a number hold 0."""
        if recorded.shape[-1] != self.width:
            raise ValueError(f"{recorded.shape[-1]} numbers a step; the mapping has {self.width}")
        values = np.zeros((len(recorded), SIZE), np.float32)
        values[:, self.slots] = (recorded[:, self.columns] - self._low) / self._span
        return values

    def back(self, values: NDArray) -> NDArray[np.float32]:
        """The way back: values [T, 128] -> numbers [T, J]; those that are not used are 0."""
        recorded = np.zeros((len(values), self.width), np.float32)
        recorded[:, self.columns] = values[:, self.slots] * self._span + self._low
        return recorded
