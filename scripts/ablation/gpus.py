"""Leases on the GPUs of one machine, so that no two jobs share a card by accident, and several where they may and fit."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ablation import leave, nvml
from ablation.locks import POLL_SECONDS
from ablation.sharing import Queue

MIB, GIB = 2**20, 2**30


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
    return (
        nvml.gpu_uuids() if preset is None else [name.strip() for name in preset.split(",") if name.strip() not in ("", "-1")]
    )


def given_by_scheduler() -> bool:
    """Whether SLURM handed this process its GPUs: then no other job has them, and there is nothing to lease."""
    return "SLURM_JOB_ID" in os.environ


def card_mib(otherwise_gib: float) -> int:
    """Memory that programs can have on each visible GPU, in MiB; ``otherwise_gib`` where NVML does not tell."""
    known = [nvml.usable_bytes(nvml.uuid_of(name)) for name in visible_gpus()]
    return min((found // MIB for found in known if found is not None), default=int(otherwise_gib * GIB / MIB))


@contextmanager
def lease_gpus(count: int, locks: Path | None = None, share: Share | None = None) -> Iterator[Lease]:
    """Hold ``count`` GPUs while inside, waiting until they are free; CUDA_VISIBLE_DEVICES names them.

    With ``share``, only that much of each: other jobs may share the rest. Holds nothing on a machine without GPUs, and all of
    them under SLURM. Call before CUDA is initialised.
    """
    names = visible_gpus()
    if not names or given_by_scheduler():
        yield Lease(names)
        return
    if count > len(names):
        raise RuntimeError(f"{count} GPUs asked for, {len(names)} visible")
    folder = locks or Path(os.environ.get("TMPDIR", "/tmp")) / f"ablation-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cards = {nvml.uuid_of(name): name for name in names}
    queue = Queue(folder, list(cards), count, *(share or ()))
    previous = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        held = [cards[card] for card in _wait(queue)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
        yield Lease(held, share, queue.most)
    finally:
        queue.leave()
        if previous is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = previous


def _wait(queue: Queue) -> list[str]:
    """The cards, once there are as many as asked for: all or none, so that two jobs cannot each hold half of what both need."""
    while (held := queue.ask()) is None:
        leave.check()
        time.sleep(POLL_SECONDS)
    return held
