"""Steps that a device still computes: their numbers are on their way, and whoever reads them waits for no more than them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Reading:
    """The copy of some numbers in the host's memory, under way as soon as the device has computed them."""

    def __init__(self, numbers: Tensor):
        """``numbers`` [N], which nothing changes any more. On a CPU they are there already."""
        self._numbers, self._arrived = numbers, None
        if numbers.device.type == "cuda":
            self._numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def values(self) -> list[float]:
        """The numbers, waited for."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._numbers.tolist()


@dataclass(frozen=True)
class Underway:
    """An optimizer step that was given to the device: ``known`` of its row already, ``names`` of the numbers to come.

    The last number read says whether a signal asks any process to leave.
    """

    step: int
    known: dict[str, Any]
    names: Sequence[str]
    reading: Reading

    def row(self, seconds: float) -> tuple[dict[str, Any], bool]:
        """The step's row, which took ``seconds``; and whether to leave."""
        *numbers, leaves = self.reading.values()
        return {**self.known, **dict(zip(self.names, numbers, strict=True)), "seconds": round(seconds, 6)}, leaves > 0
