"""What others hold of the GPUs of a job, by NVML: beside a neighbour, a GPU that is full says nothing of a run.

A lease keeps this project's jobs apart, and nobody else.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation import leave, nvml
from ablation.errors import UserError
from ablation.gpus import Lease
from ablation.kin import is_own

GIB = 2**30
NOTABLE_GIB = 1.0  # less is a desktop, or a process that has only begun
OUTSIDE_GIB = 1.0  # what a process holds outside of PyTorch's allocator, at most: CUDA's context, libraries, NCCL
WAIT_SECONDS, POLL_SECONDS = 60.0, 1.0
AGAIN = "--again"  # argument of a program that a neighbour has disturbed once
STATUS = 77  # exit status of a process that a neighbour has disturbed, and that another process takes up again


class CardShared(UserError):
    """Memory ran out beside a neighbour, which is no result. ``neighbours``: those of the job."""

    def __init__(self, found: str, neighbours: "Neighbours"):
        super().__init__(f"the card was shared: {found}; end what else runs there, or hide the card (CUDA_VISIBLE_DEVICES)")
        self.neighbours = neighbours


class Neighbours:
    """Processes of others on ``gpus``, as CUDA_VISIBLE_DEVICES names them. To be made before this process uses them.

    Where NVML lists processes, their memory is known. Where it does not (containers), the memory of others is the device's
    used memory, less what was used when this object was made and what this process holds. Without that number, it is unknown.
    """

    def __init__(self, gpus: Sequence[str]):
        self._before = {gpu: nvml.device_used_bytes(nvml.uuid_of(gpu)) for gpu in gpus}

    def found(self) -> str | None:
        """The first GPU of which others hold more than ``NOTABLE_GIB``, how much, and who; None where there is none."""
        return next(filter(None, (self._on(gpu, before) for gpu, before in self._before.items())), None)

    def wait(self) -> None:
        """Until they are gone, a minute at the most."""
        end = time.monotonic() + WAIT_SECONDS
        while self.found() and time.monotonic() < end:
            leave.check()
            time.sleep(POLL_SECONDS)

    def _on(self, gpu: str, before: int | None) -> str | None:
        uuid = nvml.uuid_of(gpu)
        processes = nvml.processes(uuid)
        if os.getpid() in processes and None not in processes.values():
            others = {number: size for number, size in processes.items() if not is_own(number)}
            return _told(gpu, sum(others.values()), _named(others))
        now = nvml.device_used_bytes(uuid)
        return None if None in (now, before) else _told(gpu, now - before - _own_bytes(), "processes that NVML does not tell")


NOBODY = Neighbours([])


def of_place(number: int, gpus: Sequence[str]) -> Neighbours:
    """Those on one of ``gpus``, by its number; none where there is no such GPU."""
    return Neighbours(gpus[number : number + 1])


class Usage:
    """What an attempt uses of its GPUs. Made before the attempt, asked after it."""

    def __init__(self, held: Lease):
        self.held, self._beside, self._before = held, Neighbours(held.gpus), nvml.energy_of(held.gpus)

    def used(self) -> tuple[float | None, int]:
        """Energy in J, None where a GPU is shared or does not report it; and the most jobs on one GPU at a time."""
        now, shared = nvml.energy_of(self.held.gpus), self._beside.found() is not None
        known = now is not None and self._before is not None and self.held.share is None and not shared
        return round(now - self._before, 1) if known else None, max(self.held.most(), 1 + shared)


def mark(found: dict[str, Any], in_part: bool) -> None:
    """Record in ``found`` that the card was shared: numbers of the whole device go, unless the run had a part (``in_part``)."""
    if "time" in found:
        found["time"]["packed"] = 2
    if not in_part:
        found["memory"] |= {name: None for name in ("energy_j", "peak_device_gib") if name in found["memory"]}


def _told(gpu: str, size: int, who: str) -> str | None:
    return f"{size / GIB:.1f} GiB of GPU {gpu} were held by {who}" if size > NOTABLE_GIB * GIB else None


def _named(processes: Mapping[int, int]) -> str:
    """The processes, largest first."""
    ordered = sorted(processes, key=lambda number: -processes[number])
    names = {number: Path(nvml.process_name(number)).name for number in ordered}
    return ", ".join(f"process {number}" + f" ({name})" * bool(name) for number, name in names.items())


def _own_bytes() -> int:
    """What this process holds of its GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return torch.cuda.memory_reserved() + int(OUTSIDE_GIB * GIB)
