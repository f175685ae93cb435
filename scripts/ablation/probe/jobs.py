"""Probes as processes of this machine, as many at a time as it has GPUs."""

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 0.2


class Job(NamedTuple):
    """A command that writes ``output``, and what it needs of a machine."""

    name: str
    command: list[str]
    output: Path
    gpus: int
    threads: int
    mem_gib: int


Ended = tuple[Job, str | None]  # a job, and why it failed
Send = Callable[[Sequence[Job]], Generator[Ended]]  # runs jobs, yields each as it ends


def run_locally(jobs: Sequence[Job], logs: Path, at_a_time: int) -> Generator[Ended]:
    """Run ``jobs``, ``at_a_time`` at once, each with a log in ``logs``. Left early, it kills those that run."""
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running = deque(jobs), {}
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                job = waiting.popleft()
                running[_start(job, logs)] = job
            for process in [process for process in running if process.poll() is not None]:
                job = running.pop(process)
                yield (
                    job,
                    _failure(process.returncode, (logs / f"{job.name}.log").read_text(encoding="utf-8", errors="replace")),
                )
            time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def _start(job: Job, logs: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads)}
    with (logs / f"{job.name}.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _failure(status: int, log: str) -> str | None:
    if status < 0:
        return killed_by(signal.Signals(-status).name)
    return None if status == 0 else last_words(log)


def killed_by(name: str) -> str:
    """Why a job that ``name`` ended may have ended."""
    return f"killed by {name}{'; out of host memory?' if name == 'SIGKILL' else ''}"


def last_words(log: str) -> str:
    """The line of ``log`` that says why a program failed: its last error, or the last one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return error_line(log) or (lines or ["it said nothing"])[-1]


def error_line(log: str) -> str | None:
    """The last line that begins, maybe after the name of a program, with ``error:``."""
    found = re.findall(r"^(?:\S+: )?error: .*", log, re.MULTILINE)
    return found[-1].strip() if found else None
