"""A study while it runs: its runs, how much of the work is done, and how long the rest may take."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ablation.errors import UserError
from ablation.live.attempt import duration
from ablation.live.reading import ABSENT, Files, as_record, as_rows, error_in, last_lines, names_in, number, part
from ablation.live.run import AT_WORK, FINISHED, NOT_SUBMITTED, QUIET_LOG, STATES, Logs, Run

TO_TRAIN = ("training", "starting", "stalled", "stopped", "preempted", "waiting")  # states of runs whose training is to end


class Left(NamedTuple):
    """``seconds`` of training that a study still needs, with as many runs ``at_once`` as train now."""

    seconds: float
    at_once: int


class Study:
    """The results ``folder`` of a study as they are now."""

    def __init__(self, folder: Path, files: Files):
        self.name = f"{folder.parent.name}/{folder.name}"
        plan = files.read(folder / "plan.csv", as_rows).value
        self.planned = plan is not None
        there, now = names_in(folder / "runs"), time.time()
        log = ABSENT if self.planned else files.read(folder / "logs/plan.log", last_lines)
        self.plan_failed = error_in(log.value)
        """Why there is no plan, where making one has failed."""
        self.plan_silence = log.silence(now)
        """Seconds since the making of a plan said something; None where none was begun, or it is there."""
        logs = Logs(folder / "logs/train", files)
        rows = [{"run": name} for name in sorted(there)] if plan is None else [row for row in plan if row.get("run")]
        folders = {name: folder / "runs" / name for name in there}
        self.runs = [Run(row, folders.get(row["run"]), logs, files, now) for row in rows]
        self._steps = part(files.read(folder / "study.json", as_record).value, "study", "training", "steps")

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state, in the order of :data:`STATES`."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def planning(self) -> str:
        """The state of a plan that is not there yet: being made, failed and why, or not begun."""
        if self.plan_silence is None:
            return "not planned yet"
        if self.plan_silence > QUIET_LOG:
            return f"the plan was not finished: not a word for {duration(self.plan_silence)}"
        return "the plan is being made"

    @property
    def at_work(self) -> bool:
        """Whether a run is at work."""
        return any(state in AT_WORK for state in self.counts)

    @property
    def under_way(self) -> bool:
        """Whether a run was begun and is not at its end, well or not."""
        return bool(set(self.counts) - {*FINISHED, *NOT_SUBMITTED, "waiting"})

    @property
    def finished(self) -> bool:
        """Whether nothing is to come, and nothing to be seen to."""
        return self.planned and set(self.counts) <= {*FINISHED, *NOT_SUBMITTED}

    def done(self) -> float | None:
        """The share of the training that needs no more work, by optimizer steps; None while there is no run."""
        mine = [run for run in self.runs if run.state not in NOT_SUBMITTED]
        whole = sum(self._total(run) for run in mine)
        return sum(self._total(run) - self._to_do(run) for run in mine) / whole if whole else None

    def left(self) -> Left | None:
        """The time that the training may take yet; None where it is over, or nothing is known of its speed."""
        at_once = max(1, sum(run.state == "training" for run in self.runs))
        todo = [(run, self._to_do(run)) for run in self.runs if run.state in TO_TRAIN]
        if not todo or not self._paces:
            return None
        seconds = [steps * self._step_seconds(run) for run, steps in todo]
        return Left(max(sum(seconds) / at_once, max(seconds)), at_once)

    def _to_do(self, run: Run) -> float:
        if run.state in (*FINISHED, "trained", "evaluating"):
            return 0.0
        return max(0.0, self._total(run) - (run.step or 0.0))

    def _total(self, run: Run) -> float:
        """Steps of the whole run: as it told, as the study says, or as many samples as other runs see."""
        told = run.total_steps or number(_as_number(run.row.get("training.steps"))) or number(self._steps)
        return told or self._samples_per_epoch * _epochs(run) / _batch(run)

    @cached_property
    def _samples_per_epoch(self) -> float:
        """Up to a factor, where the study gives no number of epochs on an axis."""
        return median([run.total_steps * _batch(run) / _epochs(run) for run in self.runs if run.total_steps] or [1.0])

    @cached_property
    def _paces(self) -> Mapping[tuple | None, float]:
        """Median seconds a sample of each cell, and of all (None)."""
        found = defaultdict(list)
        for run in self.runs:
            if run.step_s:
                for key in (_cell(run), None):
                    found[key].append(run.step_s / _batch(run))
        return {key: median(paces) for key, paces in found.items()}

    def _step_seconds(self, run: Run) -> float:
        return run.step_s or self._paces.get(_cell(run), self._paces[None]) * _batch(run)


def find_studies(results: Path, names: Iterable[str]) -> list[Path]:
    """Folders of the studies that were started, all or those with these ``names``: in every scale, or as ``scale/name``.

    Raises :class:`UserError` for a name that there is not.
    """
    there = sorted({path.parent for name in ("study.json", "plan.csv") for path in results.glob(f"*/*/{name}")})
    known = sorted({folder.name for folder in there})
    wanted = {name: [folder for folder in there if name in (folder.name, "/".join(folder.parts[-2:]))] for name in names}
    for name, found in wanted.items():
        if not found:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{results} has no study {name!r}{hint}\n  there: {', '.join(known) or 'none; was one started?'}")
    return [folder for folder in there if not wanted or any(folder in found for found in wanted.values())]


def _as_number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _epochs(run: Run) -> float:
    return number(_as_number(run.row.get("training.epochs"))) or 1.0


def _batch(run: Run) -> float:
    """Samples a step."""
    return number(_as_number(run.row.get("effective_batch"))) or 1.0


def _cell(run: Run) -> tuple:
    """The axes without the seed; in a plan they stand between the run and the effective batch."""
    names = list(run.row)
    end = names.index("effective_batch") if "effective_batch" in names else 1
    return tuple(run.row[name] for name in names[1:end] if name != "seed")
