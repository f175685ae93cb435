"""How much memory a run may hold: that of the study's card, to which a larger device is held."""

from dataclasses import dataclass
from typing import Any

import torch

from ablation.hardware import Card

GIB = 2**30
CONTEXT_GIB = 0.5  # CUDA's context and libraries, outside of PyTorch's allocator: 300 to 500 MB a process, by NVML
SAME_SIZE = 0.03  # cards whose usable memory differs by less are of one size: drivers and ECC make as much of a difference


@dataclass(frozen=True)
class Budget:
    """What PyTorch's allocator may hold in a run, in GiB; ``emulated`` where another device stands in for the card."""

    card: str
    allocator_gib: float
    emulated: bool

    def __str__(self) -> str:
        return f"{self.allocator_gib:.4g} GiB ({'emulated ' if self.emulated else ''}{self.card})"

    def report(self) -> dict[str, Any]:
        """The part of a memory record that says what it was measured under."""
        return {"card": self.card, "budget_gib": self.allocator_gib, "emulated": self.emulated}


def allocator_gib(card: Card) -> float:
    """What PyTorch's allocator can hold on ``card``, in GiB."""
    return card.usable_gib - CONTEXT_GIB


def hold_to_card(name: str, card: Card, device: torch.device) -> Budget:
    """Hold this process to the memory of the card ``name`` on ``device``; returns the budget that is now in force.

    A larger CUDA device is capped; one of the card's size or smaller is left as it is, and is the budget. On a CPU nothing
    is capped here: the meter refuses tensors above the budget (:class:`ablation.vram.measure.CpuMeter`).
    """
    if device.type != "cuda":
        return Budget(name, allocator_gib(card), emulated=True)
    total = torch.cuda.get_device_properties(device).total_memory / GIB
    if total <= card.usable_gib * (1 + SAME_SIZE):
        return Budget(name, total - CONTEXT_GIB, emulated=False)
    # The fraction is of the device's total and caps the allocator alone. It takes an index or None, not a bare "cuda".
    torch.cuda.set_per_process_memory_fraction(allocator_gib(card) / total, device.index)
    return Budget(name, allocator_gib(card), emulated=True)


def whole_device(device: torch.device) -> None:
    """What :func:`hold_to_card` has capped holds no longer."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device.index)
