"""A program on a pretended GPU: NVML tells of a neighbour, and the third pass through the network does not fit.

NEIGHBOUR: ``first`` is there until the program has begun anew, ``always`` stays; ``none`` is not there; ``large``: stays beside
a run that would not fit an empty card either.
"""

import os
import sys
from itertools import count
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))  # as for a program of that folder

import torch  # noqa: E402

from ablation import neighbours, nvml  # noqa: E402
from ablation.systems.vggt.system import System  # noqa: E402

STRANGER, GIB = 1, 2**30

neighbours.WAIT_SECONDS = 0.0
kind, again = os.environ["NEIGHBOUR"], neighbours.AGAIN in sys.argv
there = kind in ("always", "large") or (kind == "first" and not again)
asked = "30.00 GiB" if kind == "large" else "3.00 GiB"
nvml.processes = lambda uuid: {os.getpid(): 2 * GIB} | ({STRANGER: 5 * GIB} if there else {})
nvml.process_name = lambda number: "/usr/bin/jupyter"
objective, passes = System.objective, count(1)


def crowded(self, *arguments):
    """As its own, until the card is full."""
    if (there or kind == "none") and next(passes) >= 3:
        size = "Of the allocated memory 1.00 GiB is allocated by PyTorch, and 0.00 MiB is reserved by PyTorch but unallocated."
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {asked}. {size}")
    return objective(self, *arguments)


System.objective = crowded
sys.argv[0] = __file__  # which the program begins anew; runpy would set it to the program's own
program = SCRIPTS / os.environ.get("PROGRAM", "train_run.py")
code = compile(program.read_text(), program, "exec")
exec(code, {"__name__": "__main__", "__file__": str(program)})  # noqa: S102
