"""The processes of a training on one node of several: started by srun, a program a node (:mod:`ablation.training.nodes`)."""

import os
import signal
import sys
import threading
from pathlib import Path

from ablation.cli import call
from ablation.gpus import lease_gpus
from ablation.training.launcher import passed_on, spawn, watch


def follow() -> None:
    """Do what the first node says: names of signals, for all processes. When it says no more, this ends, and they with it."""
    for line in sys.stdin:
        os.kill(os.getpid(), signal.Signals[line.strip()])
    os._exit(1)


def main() -> None:
    """Lease this node's GPUs, start its processes and watch them."""
    on_each, world, host, port, report, *arguments = sys.argv[1:]
    first = int(on_each) * (1 + int(os.environ["SLURM_PROCID"]))
    processes: list = []
    with passed_on(processes), lease_gpus(int(on_each)):
        spawn(processes, arguments, range(first, first + int(on_each)), int(world), (host, int(port)), Path(report))
        threading.Thread(target=follow, daemon=True).start()
        sys.exit(watch(processes, int(world), Path(report)))


if __name__ == "__main__":
    call(main)
