"""Runs that one job does one after the other, each in a fork of a process that has loaded the libraries for all of them."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from ablation import leave
from ablation.cli import call
from ablation.kin import die_with
from ablation.planned import verdicts_of
from ablation.resolved import runs_of
from ablation.sweep import Run
from ablation.training.launcher import passed_on

SENT = ("fits", "tight")  # verdicts of the plan


def companions_of(run: Run, study: Path, plan: Path) -> list[Run]:
    """Others of the resolved ``study`` that may follow ``run``: those that read the same, and that the ``plan`` sends."""
    sent = {run for run, verdict in verdicts_of(plan).items() if verdict in SENT}
    return [
        other
        for other in runs_of(study)
        if other.id in sent and other.id != run.id and other.in_one_process and _reads(other) == _reads(run)
    ]


def _reads(run: Run) -> tuple[str, str | None]:
    return run.base, run.prefix


class Child(get_context("fork").Process):
    """A process that has all that this one has loaded, and dies with it."""

    def send_signal(self, number: int) -> None:
        """Ask it to leave. A terminal sends SIGINT to all, and the second one interrupts: here it is passed on as SIGTERM."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM if number == signal.SIGINT else number)


def in_child(work: Callable[[], None]) -> int:
    """Do ``work`` in a fork of this process; returns its exit status: -n for signal n, ``leave.STATUS`` where it left.

    Signals that ask to leave are passed on. CUDA must not have been initialised here, nor a thread of torch's started.
    """
    leave.check()
    child, started = Child(target=_do, args=(work, os.getpid())), []
    with passed_on(started):
        child.start()
        started.append(child)
        if leave.asked():  # meanwhile
            child.send_signal(signal.SIGTERM)
        try:
            child.join()
        finally:
            child.kill()
    return child.exitcode


def _do(work: Callable[[], None], parent: int) -> None:
    """What the child does; its errors are told as a program tells its own."""
    leave.listen()
    die_with(parent)
    try:
        call(work)
    except leave.Left:
        sys.exit(leave.STATUS)
