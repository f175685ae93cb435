"""Several processes that train one model, one a GPU: how they are started, and which of them this one is."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """Which process this is, of how many, all on one machine."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


def place() -> Place:
    """This process's place, as torchrun has set it; alone without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place()
    return Place(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def start(arguments: Sequence[str], count: int) -> int:
    """Run this program ``count`` times with ``arguments``; returns 0, or the exit status of torchrun when one of them failed.

    The others are ended then: they would wait for it for ever.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.run([*torchrun, "--", *arguments], check=False).returncode
