"""Measures cells, each once: what is measured lies in a file of the cell's name, so whatever is interrupted continues."""

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ablation.files import write_json
from ablation.probe.cell import Cell
from ablation.probe.jobs import Job, Send
from ablation.resolved import fingerprint_of

Record = dict[str, Any]

log = logging.getLogger(__name__)
PROGRAM = Path(__file__).parents[2] / "probe_cell.py"
FAILURES = "failures.json"


class Prober:
    """Cells of one study, measured by jobs that ``send`` runs; their records are files of ``folder``.

    ``cards``: folder of the hardware files, for the jobs.
    """

    def __init__(self, study: Path, cards: Path, folder: Path, send: Send):
        self.study, self.cards, self.folder, self.send = study, cards, folder, send

    def measure(self, cells: Sequence[Cell], what: str) -> dict[str, Record]:
        """A record for the name of each cell: its ``outcome`` is ``completed``, ``oom`` or, with a reason, ``failed``.

        ``what`` names the work beside its progress bar. Only what has no record yet is run; a cell that failed has none.
        """
        todo = {cell.name: cell for cell in cells if not self._file(cell.name).is_file()}
        found = {cell.name: self._read(cell.name) for cell in cells if cell.name not in todo}
        jobs = [self._job(cell) for cell in todo.values()]
        bar = tqdm(total=len(found) + len(todo), initial=len(found), desc=what, unit="cell")
        with bar as progress, closing(self.send(jobs)) as ended:  # closed, it cancels what has not ended
            for job, reason in ended:
                found[job.name] = self._read(job.name) if reason is None else self._failed(job.name, reason)
                progress.update()
        return found

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Record:
        return json.loads(self._file(name).read_text(encoding="utf-8"))

    def _failed(self, name: str, reason: str) -> Record:
        """Counts the failure in a file: by that the workflow knows that there is something to try again."""
        log.warning("%s failed: %s", name, reason)
        path = self.folder / FAILURES
        counts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_json(path, {**counts, name: counts.get(name, 0) + 1})
        return {"outcome": "failed", "reason": reason}

    def _job(self, cell: Cell) -> Job:
        run, output = cell.run, self._file(cell.name)
        arguments = {
            "study": self.study,
            "run": run.id,
            "fingerprint": fingerprint_of(run),
            "batch": run.axes["batch"],
            "accumulation": run.axes["accumulation"],
            "steps": cell.steps,
            "cards": self.cards,
            "threads": run.settings.compute.threads,
            "output": output,
        }
        command = [sys.executable, str(PROGRAM), *(f"--{name}={value}" for name, value in arguments.items())]
        compute = run.settings.compute
        return Job(cell.name, command, output, run.axes["gpus"], compute.threads, compute.mem_gib)
