"""Several processes that train one model, one a GPU: how they are started, and which of them this one is."""

import os
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


def start(arguments: Sequence[str], count: int) -> bool:
    """Run a program ``count`` times by torchrun; ``arguments``: its file, and what it takes. Returns whether all succeeded.

    Where one fails the others are ended: they would wait for it for ever.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(["--standalone", "--nproc-per-node", str(count), "--", *arguments])
    except ChildFailedError:  # its text is a page, and the error of the process stands above
        return False
    return True
