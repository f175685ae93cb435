"""Leases on the GPUs of one machine: lock files, one a GPU, so that two jobs never share a card by accident."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablation import leave, nvml
from ablation.locks import POLL_SECONDS, try_lock


def visible_gpus() -> list[str]:
    """GPUs this process may use, as CUDA_VISIBLE_DEVICES names them: what is set already is respected."""
    preset = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        nvml.gpu_uuids() if preset is None else [name.strip() for name in preset.split(",") if name.strip() not in ("", "-1")]
    )


def given_by_scheduler() -> bool:
    """Whether SLURM handed this process its GPUs: then no other job has them, and there is nothing to lease."""
    return "SLURM_JOB_ID" in os.environ


@contextmanager
def lease_gpus(count: int, locks: Path | None = None) -> Iterator[list[str]]:
    """Hold ``count`` GPUs while inside, waiting until they are free; CUDA_VISIBLE_DEVICES names them.

    Yields nothing on a machine without GPUs and all of them under SLURM. Call before CUDA is initialised.
    """
    names = visible_gpus()
    if not names or given_by_scheduler():
        yield names
        return
    if count > len(names):
        raise RuntimeError(f"{count} GPUs asked for, {len(names)} visible")
    folder = locks or Path(os.environ.get("TMPDIR", "/tmp")) / f"ablation-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = _take(names, count, folder)
    previous = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    try:
        yield list(held)
    finally:
        for descriptor in held.values():
            os.close(descriptor)
        if previous is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = previous


def _take(names: list[str], count: int, folder: Path) -> dict[str, int]:
    """Lock ``count`` of the GPUs: all or none, so that two jobs cannot each hold half of what both need."""
    while True:
        held: dict[str, int] = {}
        for name in names:
            descriptor = try_lock(folder / nvml.uuid_of(name).replace("/", "_"))
            if descriptor is not None:
                held[name] = descriptor
            if len(held) == count:
                return held
        for descriptor in held.values():
            os.close(descriptor)
        leave.check()
        time.sleep(POLL_SECONDS)
