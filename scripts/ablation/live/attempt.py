"""The latest attempt at a run: where it is, how far, whether it lives."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablation.live.reading import Seen, number, part, words

SILENT = 120.0  # seconds without a sign of life; beats come every 10, a network file system may show them a minute late
GONE = 15.0  # the same where the process can be looked for, on the machine that looks on
SLOW = 10  # times its usual time, and a step counts as stalled
STALLED = 120.0  # seconds, but never less than these
STALLED_ELSE = 900.0  # outside of steps, and before the first one: loading, a preview, a checkpoint
WHO = ("host", "process")
DOING = {"load": "loading", "preview": "previewing", "save": "saving"}


class Attempt(NamedTuple):
    """What the files of ``state/`` say of the attempt that began last."""

    journal: Seen
    progress: Seen
    lease: Seen

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """What happened to the run, oldest first."""
        return self.journal.value or ()

    @property
    def start(self) -> Mapping[str, Any] | None:
        """The event of its start."""
        return next((event for event in reversed(self.events) if event.get("event") == "start"), None)

    @property
    def end(self) -> Mapping[str, Any] | None:
        """The event of its end; None while it runs, and where it was killed."""
        last = next((event for event in reversed(self.events) if event.get("event") in ("start", "end")), None)
        return last if part(last, "event") == "end" else None

    @property
    def holder(self) -> Mapping[str, Any]:
        """Who has the lease, or had it."""
        return self.lease.value or {}

    def of_progress(self, name: str) -> float | None:
        """A number that the attempt told of itself."""
        return None if self._told_nothing() else number(part(self.progress.value, name))

    @property
    def step(self) -> float | None:
        """Optimizer steps that are done; those of the attempt before where this one has not begun to train."""
        told = self.of_progress("step")
        if told is not None and self.phase != "load":
            return told
        resumed = next((event for event in reversed(self.events) if event.get("event") == "train"), None)
        return number(part(resumed or self.progress.value, "step"))

    @property
    def phase(self) -> str:
        """What it does: load, train, preview or save."""
        known = self.of_progress("time") is not None
        return words(part(self.progress.value, "phase") or "load") if known else "load"

    def beats(self, now: float) -> bool:
        """Whether somebody holds the lease and gives signs of life."""
        silence = self.lease.silence(now, self.holder.get("beat"))
        return silence is not None and silence < (GONE if self._missing() else SILENT)

    def follows(self, now: float) -> bool:
        """Whether another attempt has the lease already and is about to begin."""
        if not self.beats(now):
            return False
        return self.start is None or (bool(self.holder) and any(self.holder.get(name) != self.start.get(name) for name in WHO))

    def death(self, now: float) -> str | None:
        """Why the attempt, which wrote no end, is thought dead; None while it gives signs of life."""
        beat = self.lease.silence(now, self.holder.get("beat"))
        silence = self._age(now) if beat is None else beat
        if self._missing() and silence >= GONE:
            return f"killed without a word: its process {self.holder['process']} is gone"
        if silence >= SILENT:
            return f"no sign of life for {duration(silence)}: killed without a word, or its machine is gone"
        return None

    def stall(self, now: float) -> str | None:
        """Why the attempt, which lives, is thought to make no progress; None while it makes some."""
        silence = self._age(now) if self._told_nothing() else self.progress.silence(now, part(self.progress.value, "time"))
        usual, phase = self.of_progress("step_s"), self.phase
        stepping = phase == "train" and usual is not None
        if silence <= max(STALLED if stepping else STALLED_ELSE, SLOW * (usual or 0.0)):
            return None
        if not stepping:
            return f"{DOING.get(phase, 'in the first step')} for {duration(silence)}"
        return f"at step {self.step or 0:.0f} for {duration(silence)}; a step usually takes {duration(usual)}"

    def _age(self, now: float) -> float:
        """Seconds since its start, or since it wrote its latest event."""
        return self.journal.silence(now, part(self.start, "time")) or 0.0

    def _told_nothing(self) -> bool:
        """Whether it has not told how far it is: what is there, if anything, is an earlier attempt's."""
        began, told = number(part(self.start, "time")), number(part(self.progress.value, "time"))
        return self.progress.modified is None or (began is not None and told is not None and told < began)

    def _missing(self) -> bool:
        """Whether the lease's holder is a process of this machine that there is not."""
        process = self.holder.get("process")
        if self.holder.get("host") != socket.gethostname() or not isinstance(process, int) or process <= 0:
            return False
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass
        return False


def duration(seconds: float) -> str:
    """A time for people: 0.31s, 42s, 12m, 2h10m, 3d04h."""
    if seconds < 10:
        return f"{seconds:.2g}s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 100:
        return f"{seconds:.0f}s"
    if minutes < 100:
        return f"{minutes:.0f}m"
    if hours < 36:
        return f"{int(hours)}h{int(minutes) % 60:02d}m"
    return f"{int(days)}d{int(hours) % 24:02d}h"
