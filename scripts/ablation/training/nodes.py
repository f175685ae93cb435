"""Processes on the other nodes of a SLURM job: srun starts a program on each (:mod:`ablation.training.node`) that starts them.

The program ends when its standard input does, so also when this process dies; what is written there are the names of signals.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ablation.errors import UserError

LOST_NODE = "another node was lost, or could not start its processes; see above"
SCRIPTS = Path(__file__).parents[2]
KEPT = ("SLURM_JOB_ID", "SLURM_CONF")  # the rest says what the step of this process is, and would be taken for the new one's


class OtherNodes(subprocess.Popen):
    """All processes on other nodes, as one; ``rank`` is their first one's."""

    def __init__(
        self,
        arguments: Sequence[str],
        nodes: int,
        on_each: int,
        world: int,
        meeting: tuple[str, int],
        report: Path,
        threads: int,
    ):
        self.rank = on_each
        if "SLURM_JOB_ID" not in os.environ:
            raise UserError(f"compute.nodes: {nodes + 1}: several nodes need SLURM (snakemake --profile slurm), or set it to 1")
        step = [
            *("srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"),
            *(f"--cpus-per-task={threads * on_each}", "--cpu-bind=none", f"--exclude={os.environ['SLURMD_NODENAME']}"),
        ]
        node = [sys.executable, "-m", "ablation.training.node", on_each, world, *meeting, report.resolve(), *arguments]
        slurm = [name for name in os.environ if name.startswith(("SLURM_", "SRUN_", "SBATCH_")) and name not in KEPT]
        ours = [*slurm, "CUDA_VISIBLE_DEVICES"]  # each node has GPUs of its own, which SLURM names there
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
        super().__init__(
            [*step, *map(str, node)], stdin=subprocess.PIPE, env=environment, close_fds=False, start_new_session=True
        )

    def send_signal(self, number: int) -> None:
        """Tell the programs on the other nodes, which tell their processes."""
        if self.poll() is None and not self.stdin.closed:
            self.stdin.write(f"{signal.Signals(number).name}\n".encode())
            self.stdin.flush()

    def kill(self) -> None:
        """End the programs on the other nodes, which kill their processes."""
        self.stdin.close()

    def wait(self, timeout: float | None = None) -> int:
        """As usual; but a node that does not end within the time is left to SLURM."""
        try:
            return super().wait(timeout)
        except subprocess.TimeoutExpired:
            super().send_signal(signal.SIGKILL)
            return super().wait()
