"""Several processes that train one model, one a GPU: what each of them knows of itself, and how it joins the others.

:mod:`ablation.training.launcher` starts them.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ablation.kin import WATCHER, die_with
from ablation.training.failures import reporting

FORWARDED = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
REPORT, LISTENER = "ABLATION_REPORT", "ABLATION_LISTENER"


class Place(NamedTuple):
    """Which process this is, of how many; ``local``: which of its node's."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


def started() -> bool:
    """Whether the launcher has started this process, as one of several or as the only one."""
    return REPORT in os.environ


def place() -> Place:
    """This process's place, as the launcher has set it; alone without it."""
    if not started():
        return Place()
    return Place(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def as_one_of_several(patience: float) -> Iterator[None]:
    """Around all that a started process does: it dies with the one that watches it, and tells what it dies of.

    From here on it gets the signals that ask to leave: it must listen already.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    die_with(int(os.environ[WATCHER]))
    with reporting(Path(os.environ[REPORT]), place().rank, patience):
        yield
    part()


def join(backend: str, patience: float) -> None:
    """Meet the other processes. ``patience``: minutes that one waits for another, here and in all that they do together."""
    import torch.distributed as dist

    if dist.is_initialized():
        return
    where, timeout = place(), timedelta(minutes=patience)
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        where.count,
        where.first,
        timeout,
        master_listen_fd=int(os.environ[LISTENER]) if where.first else None,
    )
    dist.init_process_group(backend, store=store, rank=where.rank, world_size=where.count, timeout=timeout)


def part() -> None:
    """Leave the groups: the interpreter, at its end, would now and then abort over their threads."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def bound_all_groups(patience: float) -> None:
    """The same for groups that a library has made of its own, with torch's timeout of half an hour."""
    from torch.distributed import distributed_c10d as c10d

    for group in list(c10d._world.pg_map):
        c10d._set_pg_timeout(timedelta(minutes=patience), group)


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in their order; all come together for it."""
    import torch.distributed as dist

    values: list[Any] = [None] * place().count
    dist.all_gather_object(values, value)
    return values
