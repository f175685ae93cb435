"""Leases on the GPUs of one machine, so that no two jobs share a card by accident, and several where they may and fit."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ablation import leave, nvml
from ablation.errors import UserError
from ablation.locks import POLL_SECONDS
from ablation.sharing import Queue

MIB, GIB = 2**20, 2**30
NONE = ("", "-1", "NoDevFiles")  # the last is SLURM's
FOLDER = "ABLATION_GPUS"  # environment variable: where cards are leased, for tests; all jobs of a machine must agree on it

log = logging.getLogger(__name__)


class Share(NamedTuple):
    """What a job takes of a card beside others, of all that the card has: in MiB, with its CUDA context."""

    mib: int
    card_mib: int


@dataclass(frozen=True)
class Lease:
    """GPUs that are held: whole, or a ``share`` of each. ``most``: how many jobs held one at a time, at most."""

    gpus: list[str]
    share: Share | None = None
    most: Callable[[], int] = lambda: 1

    @property
    def share_gib(self) -> float | None:
        """What it holds of each; None is all."""
        return None if self.share is None else self.share.mib / 1024


def visible_gpus() -> list[str]:
    """GPUs this process may use, as CUDA_VISIBLE_DEVICES names them: what is set already is respected."""
    preset = os.environ.get("CUDA_VISIBLE_DEVICES")
    return nvml.gpu_uuids() if preset is None else [name for name in map(str.strip, preset.split(",")) if name not in NONE]


def identity(name: str) -> str:
    """What all jobs call the GPU that this one calls ``name``: its UUID, by NVML.

    A number that NVML does not know means something in one allocation only, where there is one: its first GPU is number 0 in
    each job.
    """
    known, job = nvml.uuid_of(name), os.environ.get("SLURM_JOB_ID")
    return f"{job}/{os.environ.get('SLURMD_NODENAME', '')}/{known}" if job and known.isdigit() else known


def card_mib(otherwise_gib: float) -> int:
    """Memory that programs can have on each visible GPU, in MiB; ``otherwise_gib`` where NVML does not tell."""
    known = [nvml.usable_bytes(nvml.uuid_of(name)) for name in visible_gpus()]
    return min((found // MIB for found in known if found is not None), default=int(otherwise_gib * GIB / MIB))


@contextmanager
def lease_gpus(count: int, locks: Path | None = None, share: Share | None = None) -> Iterator[Lease]:
    """Hold ``count`` GPUs while inside, waiting until they are free; CUDA_VISIBLE_DEVICES names them.

    With ``share``, only that much of each: other jobs may share the rest. Holds nothing on a machine without GPUs. In an
    allocation as well, where several jobs may be. Call before CUDA is initialised.

    Raises :class:`UserError` where fewer are visible, or the folder of the leases cannot be used.
    """
    names = visible_gpus()
    if not names:
        yield Lease(names)
        return
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # CUDA counts as NVML does
    cards = {identity(name): name for name in names}
    if count > len(cards):
        seen = f"{len(cards)} visible ({', '.join(names)})"
        raise UserError(f"{count} GPUs asked for, {seen}; take fewer (gpus of the sweep), or give the job more")
    folder = locks or Path(os.environ.get(FOLDER, "/dev/shm/ablation-gpus"))
    queue = Queue(folder, list(cards), count, *(share or ()))
    previous = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        held = [cards[card] for card in _wait(queue, names)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
        yield Lease(held, share, queue.most)
    finally:
        queue.leave()
        if previous is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = previous


def _wait(queue: Queue, names: Sequence[str]) -> list[str]:
    """The cards, once there are as many as asked for: all or none, so that two jobs cannot each hold half of what both need."""
    told = False
    while (held := queue.ask()) is None:
        if not told:
            log.info("waiting for %d of the GPUs %s: other jobs hold them (%s)", queue.count, ", ".join(names), queue.folder)
            told = True
        leave.check()
        time.sleep(POLL_SECONDS)
    return held
