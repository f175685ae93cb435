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
    """What PyTorch's allocator may hold in a run, in GiB; ``emulated`` where another device stands in for the card.

    ``share_gib``: what it is held to while other runs have the rest of the device.
    """

    card: str
    allocator_gib: float
    emulated: bool
    share_gib: float | None = None

    def __str__(self) -> str:
        shared = "" if self.share_gib is None else f", held to {self.limit_gib:.4g} GiB beside other runs"
        return f"{self.allocator_gib:.4g} GiB ({'emulated ' if self.emulated else ''}{self.card}){shared}"

    @property
    def limit_gib(self) -> float:
        """What the allocator is held to."""
        return self.allocator_gib if self.share_gib is None else min(self.allocator_gib, self.share_gib)

    def report(self) -> dict[str, Any]:
        """The part of a memory record that says what it was measured under."""
        return {"card": self.card, "budget_gib": self.allocator_gib, "emulated": self.emulated}


def allocator_gib(card: Card) -> float:
    """What PyTorch's allocator can hold on ``card``, in GiB."""
    return card.usable_gib - CONTEXT_GIB


def hold_to_card(name: str, card: Card, device: torch.device, share_gib: float | None = None) -> Budget:
    """Hold this process to the memory of the card ``name`` on ``device``; returns the budget that is now in force.

    A larger CUDA device is capped; one of the card's size or smaller is left as it is, and is the budget. Either is capped to
    ``share_gib``, with CUDA's context, where other processes have the rest. On a CPU nothing is capped here: the meter refuses
    tensors above the budget (:class:`ablation.vram.measure.CpuMeter`).
    """
    share = None if share_gib is None else share_gib - CONTEXT_GIB
    if device.type != "cuda":
        return Budget(name, allocator_gib(card), emulated=True, share_gib=share)
    total = torch.cuda.get_device_properties(device).total_memory / GIB
    larger = total > card.usable_gib * (1 + SAME_SIZE)
    budget = Budget(name, allocator_gib(card) if larger else total - CONTEXT_GIB, larger, share)
    if larger or share is not None:
        # The fraction is of the device's total and caps the allocator alone. It takes an index or None, not a bare "cuda".
        torch.cuda.set_per_process_memory_fraction(budget.limit_gib / total, device.index)
    return budget


def hold_to_share(share_gib: float | None, device: torch.device) -> None:
    """Hold this process to a part of ``device``, CUDA's context included, whatever the study's card; None: to nothing."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory / GIB
        fraction = 1.0 if share_gib is None else (share_gib - CONTEXT_GIB) / total
        torch.cuda.set_per_process_memory_fraction(fraction, device.index)
