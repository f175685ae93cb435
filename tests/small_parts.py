"""The training program, quick with tiny networks: ZeRO-3 gathers and gives up even their weights, and buckets are small.

Its processes are forked from one that has loaded the libraries; `test_launcher.py` starts them as users do.
"""

import os
import runpy
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from ablation.training import launcher
from ablation.vram.sharding import rank
from ablation.vram.sharding.gathering import Limits

PROGRAM = Path(__file__).parent.parent / "scripts/train_run.py"

rank.ZERO_BUCKET = 1_000_000
rank.LIMITS = Limits(
    prefetch_bucket_size=10_000, max_live_parameters=50_000, max_reuse_distance=10_000, param_persistence_threshold=300
)


class Forked:
    """What the launcher needs of :class:`subprocess.Popen`, by a fork of this process."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], close_fds: bool):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_run(env))

    def poll(self) -> int | None:
        """Its exit status, once it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The same; raises :class:`subprocess.TimeoutExpired`."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9."""
        self.send_signal(9)


def _run(env: Mapping[str, str]) -> int:
    """The program in the new process; its exit status."""
    os.environ.clear()
    os.environ.update(env)
    try:
        runpy.run_path(str(PROGRAM), run_name="__main__")
        status = 0
    except SystemExit as exit_:
        status = exit_.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    launcher.subprocess = SimpleNamespace(Popen=Forked, TimeoutExpired=subprocess.TimeoutExpired)
    runpy.run_path(str(PROGRAM), run_name="__main__")
