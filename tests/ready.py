"""Programs that start from a process which has loaded the libraries already: to load them takes seconds, each time."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from multiprocessing.forkserver import ensure_running
from multiprocessing.reduction import DupFd

import pytest

SYSTEMS = ["ablation.systems.vggt.system", "ablation.systems.kolors.system"]
LOADED = ["peft", "deepspeed", "ablation.training.trainer", *SYSTEMS, "frozen"]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(LOADED)


def start_server() -> None:
    """With the paths of this process, which it is not told otherwise, and one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("OMP_NUM_THREADS", "1")
        ensure_running()


class Program:
    """A Python program in a process of its own, with what tests need of :class:`subprocess.Popen`."""

    def __init__(self, command: Sequence, environment: Mapping[str, str], before: Callable[[], None] | None = None):
        """``command``: the file and its arguments. ``before`` is called in the process first: a function of a module."""
        start_server()
        self.args, self.returncode = command, None
        (read_out, out), (read_err, err) = os.pipe(), os.pipe()
        self.stdout, self.stderr = os.fdopen(read_out, errors="replace"), os.fdopen(read_err, errors="replace")
        self._process = SERVER.Process(target=_Run(list(map(str, command)), dict(environment), before, out, err))
        self._process.start()
        for end in (out, err):
            os.close(end)
        self.pid = self._process.pid

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it and all that it started still write, once they have ended."""
        pool = ThreadPoolExecutor(2)
        try:
            found = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            output, errors = (each.result(timeout) for each in found)
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.args, timeout) from None
        finally:
            pool.shutdown(wait=False)
        self.wait()
        return output, errors

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        self._process.join()
        self.returncode = self._process.exitcode
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()


class _Run:
    """What the process does: become the program."""

    def __init__(self, command, environment, before, out, err):
        self.command, self.environment, self.before, self.out, self.err = command, environment, before, out, err

    def __getstate__(self):
        return {**vars(self), "out": DupFd(self.out), "err": DupFd(self.err)}

    def __call__(self) -> None:
        os.dup2(self.out.detach(), 1)
        os.dup2(self.err.detach(), 2)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv = self.command
        multiprocessing.set_start_method("fork", force=True)  # as in a program started otherwise
        if self.before is not None:
            self.before()
        runpy.run_path(self.command[0], run_name="__main__")
