"""Processes that work together end together: quickly, and with the error of the one that failed first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from ablation.locks import try_lock

# A program of two processes; the second one does what the name says once both have met.
LIMIT = 300.0  # seconds, for what takes a few where nothing else runs
PROGRAM = """
import os, signal, sys, time
sys.path.insert(0, {scripts!r})
from pathlib import Path
from ablation.cli import call
from ablation.errors import UserError
from ablation.locks import try_lock
from ablation.training import launcher, processes

patience = 0.1 if sys.argv[1] in ("hang", "linger") else 60  # minutes; a busy machine may be late, too

def work(what):
    import torch, torch.distributed as dist
    processes.join("gloo", 5)
    processes.bound_all_groups(patience)
    place = processes.place()
    Path({folder!r}, f"pid-{{place.rank}}").write_text(str(os.getpid()))
    for step in range(30 if what == "linger" else 10**6):
        wish = torch.tensor([len(left)])
        dist.all_reduce(wish)
        if wish.item():
            Path({folder!r}, f"left-{{place.rank}}").touch()
            return
        if place.rank == 1 and step == 20:
            if what == "raise": raise RuntimeError("the cat ate it")
            if what == "user": raise UserError("cats.yaml: no cats")
            if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if what == "exit": os._exit(3)
            if what == "hang": time.sleep(600)
        time.sleep(0.01)

left = []

def main():
    signal.signal(signal.SIGUSR1, lambda *_: left.append(1))
    if processes.started():
        with processes.as_one_of_several(patience):
            work(sys.argv[1])
        assert "torch" not in sys.modules or not sys.modules["torch"].distributed.is_initialized(), "still in a group"
        if sys.argv[1] == "linger" and processes.place().rank == 1: time.sleep(600)
    else:
        lock = try_lock(Path({folder!r}, "lock"))
        launcher.start(sys.argv, 2, Path({folder!r}), patience)
        assert left or sys.argv[1] != "leave"

call(main)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(scripts=str(ROOT / "scripts"), folder=str(tmp_path)))
    return path


def begin(program: Path, what: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, program, what], stderr=subprocess.PIPE, text=True)


def processes_of(folder: Path) -> list[int]:
    """The ids of both processes, once they have met."""
    files = [folder / "pid-0", folder / "pid-1"]
    deadline = time.monotonic() + LIMIT
    while not all(file.is_file() and file.read_text() for file in files):
        assert time.monotonic() < deadline, "they never met"
        time.sleep(0.05)
    return [int(file.read_text()) for file in files]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ENDS = {
    "raise": "process 2 of 2: RuntimeError: the cat ate it",
    "user": "process 2 of 2: cats.yaml: no cats",
    "kill": "process 2 of 2: killed by SIGKILL; out of host memory?",
    "exit": "process 2 of 2: exited with status 3, without a word",
    "hang": "process 1 of 2: another process did not come for 0.1 minutes (compute.patience_min): it hangs, or its node",
    "linger": "process 2 of 2: did not end within 0.1 minutes (compute.patience_min) of another",
}


@pytest.mark.parametrize("what", ENDS)
def test_the_error_that_is_told_is_the_first(program, tmp_path, what):
    """It is the last line; what the other process met because of it is not told; both are gone long before their patience."""
    run = begin(program, what)
    both = processes_of(tmp_path)
    _, told = run.communicate(timeout=LIMIT)
    assert run.returncode == 2 and told.splitlines()[-1].startswith(f"error: {ENDS[what]}"), told
    assert told.count("Traceback") == (what in ("raise", "hang")) and not any(map(alive, both))
    assert "gloo" not in told or what == "hang"
    assert not list(tmp_path.glob("failure*"))


def test_a_signal_reaches_all_and_nothing_dies_of_it(program, tmp_path):
    run = begin(program, "leave")
    processes_of(tmp_path)
    run.send_signal(signal.SIGUSR1)
    _, told = run.communicate(timeout=LIMIT)
    assert run.returncode == 0 and told == "", told
    assert (tmp_path / "left-0").exists() and (tmp_path / "left-1").exists()


def test_processes_die_with_the_one_that_watches_them(program, tmp_path):
    """And until then its locks are not free."""
    run = begin(program, "on")
    both = processes_of(tmp_path)
    run.kill()
    run.wait(timeout=LIMIT)
    deadline = time.monotonic() + LIMIT
    while (descriptor := try_lock(tmp_path / "lock")) is None:
        assert time.monotonic() < deadline, "the lock stays"
        time.sleep(0.01)
    while any(map(alive, both)):  # the kernel takes a dying process's locks away before it counts as dead
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.01)
    os.close(descriptor)
