"""Results of a study as the workflow leaves them at some moment, made without training."""

import csv
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

COMPLETED = {
    "outcome": "completed",
    "steps": 80,
    "total_steps": 80,
    "final_loss": 0.25,
    "diagnoses": [],
    "time": {"step_median_s": 0.5, "samples_per_s": 16.0},
    "memory": {"peak_allocated_gib": 16.8},
}


class Results:
    """A study's folder under ``root``, with a plan of ``runs`` (id -> columns that differ)."""

    def __init__(self, root: Path, runs: dict[str, dict[str, Any]], name: str = "s", steps: int | None = 80):
        self.folder = root / "full" / name
        self.folder.mkdir(parents=True)
        self.json("study.json", {"name": name, "study": {"training": {"steps": steps}}})
        axes = {"strategy": "A", "rank": 16, "batch": 1, "gpus": 1, "seed": 0}
        usual = {**axes, "effective_batch": 8, "verdict": "fits", "reason": "needs 16.8 of 23.64 GiB"}
        with (self.folder / "plan.csv").open("w", newline="") as file:
            writer = csv.DictWriter(
                file, ["run", *usual, *{key: 0 for run in runs.values() for key in run if key not in usual}]
            )
            writer.writeheader()
            writer.writerows({"run": run, **usual, **changes} for run, changes in runs.items())

    def json(self, path: str, value: Any, ago: float = 0.0) -> Path:
        """Write ``value`` as a file of the study, last modified ``ago`` seconds ago."""
        return self.text(path, json.dumps(value), ago)

    def text(self, path: str, text: str, ago: float = 0.0) -> Path:
        """The same for a text."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        os.utime(file, (time.time() - ago,) * 2)
        return file

    def start(
        self, run: str, ago: float = 5000.0, attempt: int = 1, host: str = "n1", process: int = 1, ahead: float = 0
    ) -> None:
        """An attempt began."""
        event = {"event": "start", "attempt": attempt, "time": time.time() + ahead - ago, "host": host, "process": process}
        self._append(run, {**event, "slurm_job": "17", "gpus": ["0"]}, ago)

    def end(self, run: str, how: str, reason: str = "", ago: float = 5.0) -> None:
        """It ended."""
        self._append(run, {"event": "end", "time": time.time() - ago, "how": how, "reason": reason}, ago)

    def lease(
        self, run: str, ago: float = 3.0, host: str = "n1", process: int = 1, since: float = 5001.0, ahead: float = 0
    ) -> None:
        """Somebody holds the lease, or held it, whose last beat was ``ago`` by a clock that is ``ahead``."""
        now = time.time() + ahead
        who = {"host": host, "process": process, "slurm_job": "17"}
        self.json(f"runs/{run}/state/lease.json", {**who, "since": now - 5001, "beat": now - ago}, ago)

    def progress(self, run: str, ago: float = 1.0, ahead: float = 0.0, **changes: Any) -> None:
        """How far it was."""
        usual = {"phase": "train", "step": 40, "total_steps": 80, "loss": 0.125, "step_s": 0.5, "samples_per_s": 16.0}
        content = {"time": time.time() + ahead - ago, **usual, "memory_gib": 16.5, **changes}
        self.json(f"runs/{run}/state/progress.json", content, ago)

    def trains(self, run: str, ago: float = 1.0, **changes: Any) -> None:
        """A run that trains on another machine."""
        self.start(run)
        self.lease(run)
        self.progress(run, ago, **changes)

    def trained(self, run: str, evaluated: bool = True, ago: float = 60, **changes: Any) -> None:
        """A run whose training has ended with a result."""
        self.json(f"runs/{run}/training.json", {**COMPLETED, "run": run, **changes}, ago)
        if evaluated:
            self.json(f"runs/{run}/metrics.json", {})

    def _append(self, run: str, event: dict[str, Any], ago: float) -> None:
        path = self.folder / f"runs/{run}/state/attempts.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(event) + "\n")
        os.utime(path, (time.time() - ago,) * 2)


HERE = socket.gethostname()
