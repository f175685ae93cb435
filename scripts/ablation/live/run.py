"""A run as one sees it from outside: its state, why it is thought to be in it, and its numbers."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ablation.live.attempt import DOING, SILENT, Attempt, duration
from ablation.live.reading import (
    ABSENT,
    Files,
    Seen,
    as_events,
    as_record,
    error_in,
    last_lines,
    names_in,
    number,
    part,
    words,
)

# States, what needs a person first.
ATTENTION = ("stalled", "stopped", "failed")
AT_WORK = ("training", "starting", "evaluating")
TO_COME = ("preempted", "trained", "waiting")
FINISHED = ("untrained", "diverged", "oom", "completed")
NOT_SUBMITTED = ("oom (predicted)", "invalid")
STATES = (*ATTENTION, *AT_WORK, "preempted", "trained", *FINISHED, "waiting", *NOT_SUBMITTED)

VERDICTS = {"oom": "oom (predicted)", "invalid": "invalid"}  # of the plan, for runs that leave no trace
QUIET_LOG = 1800.0  # seconds; an evaluation says little, and a plan


class Run:
    """A run's folder ``folder`` and its logs in ``logs``, read at the time ``now``; ``row`` is the plan's."""

    def __init__(self, row: Mapping[str, str], folder: Path | None, logs: "Logs", files: Files, now: float):
        self.row, self.id, self.folder, self.now = row, row["run"], folder, now
        self._logs, self._files = logs, files
        self.training = self._record("training.json")

    @cached_property
    def state(self) -> str:
        """One of :data:`STATES`."""
        return self._judged[0]

    @property
    def why(self) -> str:
        """Why it is thought to be in this state, where that is not plain."""
        return self._judged[1]

    @property
    def doing(self) -> str:
        """What it is doing, in a word: its state, or what it does beside steps while in training."""
        return DOING.get(self.attempt.phase, self.state) if self.state == "training" else self.state

    @cached_property
    def attempt(self) -> Attempt:
        """The latest attempt at training."""
        progress, lease = self._read("state/progress.json", as_record), self._read("state/lease.json", as_record)
        return Attempt(self._read("state/attempts.jsonl", as_events), progress, lease)

    @property
    def ended(self) -> float:
        """When its training ended, by the file system's clock; 0 before."""
        return self._read("training.json", as_record).modified or 0.0

    @property
    def total_steps(self) -> float | None:
        """Optimizer steps of the whole training, once it is known."""
        told = part(self._record("state/progress.json") if self.training is None else self.training, "total_steps")
        return number(told)

    @property
    def step(self) -> float | None:
        """Optimizer steps that are done; None before training began."""
        if self.training is not None:
            return number(self.training.get("steps"))
        return self.attempt.step

    @property
    def loss(self) -> float | None:
        """The latest loss, or the mean of the last tenth of the steps once finished."""
        return self._told("final_loss", "loss")

    @property
    def memory_gib(self) -> float | None:
        """Peak memory of the training, so far."""
        return self._told("memory.peak_allocated_gib", "memory_gib")

    @property
    def step_s(self) -> float | None:
        """Seconds an optimizer step."""
        return self._told("time.step_median_s", "step_s")

    @property
    def samples_per_s(self) -> float | None:
        """Throughput."""
        return self._told("time.samples_per_s", "samples_per_s")

    @property
    def node(self) -> str:
        """The machine of the latest attempt."""
        attempt = self.attempt
        host = part(attempt.holder, "host") if self.state == "starting" else part(attempt.start, "host")
        return words(host or "")

    @property
    def tries(self) -> int | None:
        """The number of the latest attempt."""
        found = number(part(self.attempt.start, "attempt"))
        return None if found is None else int(found)

    @cached_property
    def _judged(self) -> tuple[str, str]:
        if self.training is not None:
            return self._finished(self.training)
        attempt = self.attempt
        if attempt.start is not None and not attempt.follows(self.now):
            return self._ended(attempt) if attempt.end is not None else self._under_way(attempt)
        if attempt.follows(self.now):
            return "starting", ""
        return self._not_begun()

    def _finished(self, training: Mapping[str, Any]) -> tuple[str, str]:
        outcome = words(training.get("outcome"))
        if outcome == "oom":
            found = training.get("oom")
            step = number(part(found, "step"))
            return "oom", f"in phase {words(part(found, 'phase'))}" + ("" if step is None else f" of step {step:.0f}")
        if outcome != "completed":
            found = training.get("diagnoses")
            last = found[-1] if isinstance(found, list) and found else None
            text = f"{words(part(last, 'name'))} at step {words(part(last, 'step'))}" if last else ""
            return (outcome if outcome in FINISHED else "failed"), text
        return ("completed", "") if self._is_there("metrics.json") else self._evaluation()

    def _evaluation(self) -> tuple[str, str]:
        """What is known of an evaluation that has left no result."""
        log = self._logs.read(self.id, last_lines)
        if self.attempt.beats(self.now):
            silence = min(log.silence(self.now) or 0.0, self._read("training.json", as_record).silence(self.now) or 0.0)
            quiet = f"evaluation: not a word for {duration(silence)}"
            return ("stalled", quiet) if silence > QUIET_LOG else ("evaluating", "")
        return self._failed_evaluation(self._read("training.json", as_record)) or ("trained", "")

    def _failed_evaluation(self, trained: Seen) -> tuple[str, str] | None:
        """An error that the job has met since ``trained`` was written; Snakemake may have taken away all that it had made."""
        error = self._error_since(trained)
        return ("failed", f"evaluation: {error}") if error else None

    def _ended(self, attempt: Attempt) -> tuple[str, str]:
        """The latest attempt has written how it ended, and its result is not there (any more)."""
        how, reason = words(part(attempt.end, "how")), words(part(attempt.end, "reason") or "")
        if how == "preempted":
            return self._failed_since(attempt) or (how, reason)
        if how in FINISHED:
            return self._failed_evaluation(attempt.journal) or ("trained", "")
        return "failed", reason.removeprefix("UserError: ").removeprefix("CardShared: ")

    def _under_way(self, attempt: Attempt) -> tuple[str, str]:
        if why := attempt.death(self.now):
            return self._failed_since(attempt) or ("stopped", why + self._waits(attempt))
        if why := attempt.stall(self.now):
            return "stalled", why + self._waits(attempt)
        return "training", ""

    def _failed_since(self, attempt: Attempt) -> tuple[str, str] | None:
        """A job that came after ``attempt`` and failed before it had begun another."""
        error = self._error_since(attempt.journal)
        return ("failed", error) if error else None

    def _error_since(self, written: Seen) -> str | None:
        """The error that the log ends with, if that is younger than what was ``written``."""
        log = self._logs.read(self.id, last_lines)
        if log.modified is None or written.modified is None or log.modified < written.modified:
            return None
        return error_in(log.value)

    def _waits(self, attempt: Attempt) -> str:
        """Whether another job waits for this one, as a second Snakemake sends it: the log, to which both write, tells."""
        holder = f"process {words(attempt.holder.get('process'))} on {words(attempt.holder.get('host'))}"
        lines = self._logs.read(self.id, last_lines).value or ()
        waits = any("waiting for the job that trains this run" in line and holder in line for line in lines)
        return "; another job waits for it" if waits else ""

    def _not_begun(self) -> tuple[str, str]:
        """No attempt has begun: it waits, will never run, or ended before it could say so."""
        log = self._logs.read(self.id, last_lines)
        if log.modified is None:
            verdict = self.row.get("verdict", "")
            return VERDICTS.get(verdict, "waiting"), words(self.row.get("reason", "")) if verdict in VERDICTS else ""
        if error := error_in(log.value):
            return "failed", error
        silence = log.silence(self.now)
        return ("stopped", f"began {duration(silence)} ago and left nothing") if silence > SILENT else ("starting", "")

    def _told(self, at_the_end: str, under_way: str) -> float | None:
        if self.training is not None:
            return number(part(self.training, *at_the_end.split(".")))
        return self.attempt.of_progress(under_way)

    def _record(self, name: str) -> dict[str, Any] | None:
        return self._read(name, as_record).value

    def _read(self, name: str, parse) -> Seen:
        return ABSENT if self.folder is None else self._files.read(self.folder / name, parse)

    def _is_there(self, name: str) -> bool:
        return self.folder is not None and (self.folder / name).exists()


class Logs:
    """The logs of a study's runs; their ``folder`` is listed once."""

    def __init__(self, folder: Path, files: Files):
        self._folder, self._files = folder, files
        self._names = names_in(folder)

    def read(self, run: str, parse) -> Seen:
        """The log of ``run``."""
        name = f"{run}.log"
        return self._files.read(self._folder / name, parse) if name in self._names else ABSENT
