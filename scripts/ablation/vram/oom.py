"""Running out of memory as a result: which errors mean it, and what is known at that moment."""

import gc
import re
from collections.abc import Mapping
from typing import Any

import torch

from ablation.vram.measure import GIB, Meter

# Besides PyTorch's own error: the driver's, and those of CUDA's libraries, which allocate for themselves.
DEVICE_FULL = re.compile(
    r"CUDA out of memory|CUDA (driver )?error: out of memory"
    r"|CU(BLAS|DNN|SOLVER)_STATUS_(INTERNAL_ERROR_DEVICE_)?ALLOC(ATION)?_FAILED"
)
HOST_FULL = "in pin memory thread"  # page-locked memory of the host, for which the driver has the same words
SIZE = r"(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB)\b"
BLOCK_GIB = 20 / 1024  # what PyTorch asks a device for at a time, but for small tensors
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device has no memory left. The host's memory does not count."""
    if not isinstance(error, RuntimeError) or HOST_FULL in str(error):
        return False
    return isinstance(error, torch.OutOfMemoryError) or DEVICE_FULL.search(str(error)) is not None


def stated_gib(sentence: str, message: str) -> float | None:
    """The size that stands in ``message`` where ``sentence`` has ``{}``, in GiB; None where there is no such size."""
    found = re.search(re.escape(sentence).replace(r"\{\}", SIZE), message)
    return None if found is None else float(found[1]) * UNITS[found[2]] / GIB


def out_of_memory(error: BaseException, meter: Meter, step: int | None) -> dict[str, Any]:
    """The record of ``error``, to be made while its traceback still holds what was allocated. Sizes in GiB.

    ``step`` is the optimizer step under way, None while loading. What the message states was counted when the allocation
    failed; what it does not state is what the allocator holds by now, after the C++ side has let its own tensors go.
    """
    message = str(error)
    allocated = stated_gib("Of the allocated memory {} is allocated by PyTorch", message)
    spare = stated_gib("{} is reserved by PyTorch but unallocated", message)
    held = meter.held()
    return {
        "phase": meter.phase,
        "step": step,
        "requested_gib": stated_gib("Tried to allocate {}", message),
        "allocated_gib": held["allocated_gib"] if allocated is None else allocated,
        "reserved_gib": held["reserved_gib"] if allocated is None or spare is None else allocated + spare,
        "budget_gib": meter.budget.limit_gib,
        "emulated": meter.budget.emulated,
        "message": message.partition("\n")[0],
    }


def beyond_budget(record: Mapping[str, Any]) -> bool:
    """Whether the ``record`` of an error says that no empty card would have had room: the run met the limit that is its own."""
    requested, held = record["requested_gib"], record["reserved_gib"] or record["allocated_gib"]
    return requested is not None and held is not None and held + max(requested, BLOCK_GIB) > record["budget_gib"]


def spoiled(record: Mapping[str, Any], neighbour: str | None, meter: Meter) -> bool:
    """Whether the error of a ``record`` is a ``neighbour``'s doing, as far as one knows: then it says nothing of the run.

    In a part of a card, others have theirs.
    """
    return neighbour is not None and meter.budget.share_gib is None and not beyond_budget(record)


def release_memory(device: torch.device) -> None:
    """Give back what a failed attempt held. To be called outside of the ``except`` block, which keeps it alive."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
