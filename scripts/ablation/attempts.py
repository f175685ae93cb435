"""The attempts at a run: when each began and where, from which step it went on, and how it ended. A line of JSON an event."""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Journal:
    """``state/attempts.jsonl`` of a run's folder. An attempt without an end was killed.

    Events: ``start`` (``attempt``, ``settings``: a hash of what is trained, ``host``, ``process``, ``slurm_job``, ``gpus``);
    ``train`` (``step``: steps that are done, ``total_steps``, ``repeats``: steps that an attempt before had taken further);
    ``end`` (``how``: completed, oom, diverged, failed or preempted; ``reason``; ``energy_j`` of its GPUs, None where they do
    not tell; ``packed``: the most jobs on its GPU at a time; ``seconds`` since the start, by the monotonic clock, absent
    in records of older versions). ``time`` is in Unix seconds, by the wall clock, which may jump.
    """

    def __init__(self, folder: Path):
        self.path = folder / "state" / "attempts.jsonl"
        self._begun: float | None = None

    def start(self, settings: str, gpus: list[str]) -> None:
        """An attempt begins."""
        self._begun = time.monotonic()
        number = 1 + sum(event["event"] == "start" for event in self.events())
        where = {"host": socket.gethostname(), "process": os.getpid(), "slurm_job": os.environ.get("SLURM_JOB_ID")}
        self._append(event="start", attempt=number, settings=settings, **where, gpus=gpus)

    def train(self, step: int, total: int, repeats: int) -> None:
        """It begins to train, after ``step`` steps of ``total``."""
        self._append(event="train", step=step, total_steps=total, repeats=repeats)

    def end(self, how: str, reason: str = "", energy: float | None = None, packed: int = 1) -> None:
        """It ends. A full disk may forget that, and nothing else for it."""
        took = None if self._begun is None else round(time.monotonic() - self._begun, 3)
        with suppress(OSError):
            self._append(event="end", how=how, reason=reason, energy_j=energy, packed=packed, seconds=took)

    def events(self) -> list[Event]:
        """All events, oldest first; a line that a crash has torn is none."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            with suppress(ValueError):
                found.append(json.loads(line))
        return [event for event in found if isinstance(event, dict) and "event" in event]

    def summary(self, settings: str) -> dict[str, int]:
        """``count`` of the attempts with these settings, and ``repeated_steps``: optimizer steps that were taken twice."""
        mine, count, repeated = False, 0, 0
        for event in self.events():
            if event["event"] == "start":
                mine = event.get("settings") == settings
                count += mine
            elif event["event"] == "train" and mine:
                repeated += event["repeats"]
        return {"count": count, "repeated_steps": repeated}

    def attempts(self, settings: str) -> list[Event]:
        """Each attempt with these settings: ``begin``, ``end`` (None: it was killed), ``seconds`` from one to the other,

        ``how``, ``energy_j``, ``packed``. ``seconds`` is None for a killed attempt, or an old one with impossible times.
        """
        found: list[Event] = []
        unknown = {"end": None, "seconds": None, "how": "killed", "energy_j": None, "packed": None}
        for event in self.events():
            if event["event"] == "start":
                found.append({"begin": event["time"], **unknown, "ours": event.get("settings") == settings})
            elif event["event"] == "end" and found:
                told = {name: event.get(name) for name in ("how", "energy_j", "packed")}
                found[-1].update(end=event["time"], seconds=_seconds(found[-1]["begin"], event), **told)
        return [one for one in found if one.pop("ours")]

    def _append(self, **event: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
            torn = bool(file.tell()) and file.read(1) != b"\n"
            file.write(b"\n" * torn + json.dumps({**event, "time": round(time.time(), 3)}).encode() + b"\n")


def _seconds(begin: float, end: Event) -> float | None:
    """How long an attempt took; an older version noted but the times."""
    if end.get("seconds") is not None:
        return end["seconds"]
    span = end["time"] - begin
    return span if span >= 0 else None
