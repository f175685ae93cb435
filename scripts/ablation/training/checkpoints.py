"""Checkpoints from which a run continues bit for bit: written whole, checked when read, the last good one always kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ablation import lease
from ablation.errors import UserError
from ablation.files import NO_SPACE, digest, put_folder, remove_folder, sync
from ablation.training.processes import Place

SHARED, MARKER = "state.pt", "DONE"

State = dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. ``fingerprint`` ties them to the run's settings: others are not resumed from.

    Of several processes each has one of these, and writes what it alone has; ``wait`` returns when all have come to it.
    """

    def __init__(
        self, folder: Path, fingerprint: str, keep: int, where: Place | None = None, wait: Callable[[], None] = lambda: None
    ):
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep
        self.where, self.wait = where or Place(), wait

    def save(self, step: int, shared: State, own: State) -> None:
        """Write the state after optimizer step ``step``, then remove what is no longer kept.

        ``shared``: what is the same in all processes. ``own``: what is this one's.
        """
        path = self._path(step)
        try:
            self._fill(path, shared, own)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._give_up(path)
            raise UserError(
                f"{path}: no room for the checkpoint ({error.strerror}); {self._good()}. Make room and start the workflow again"
            ) from None
        if self.where.first:  # alone: the others neither remove nor list what is removed meanwhile
            for old in self._steps()[: -self.keep]:
                remove_folder(self._path(old))

    def latest(self, complain, last: int | None = None) -> State | None:
        """The newest state that is whole and of this run, after ``last`` steps at most; ``complain`` is told of each other."""
        for step in reversed(self._steps()):
            path = self._path(step)
            if problem := self._problem(path):
                complain(f"{path}: {problem}; using the one before")
            elif last is not None and step > last:
                complain(f"{path}: the history ends at step {last}; using the one before")
            else:
                return _read(path / SHARED) | _read(path / self._own)
        return None

    def _fill(self, path: Path, shared: State, own: State) -> None:
        temporary, first = self._unfinished(path), self.where.first
        if first:
            remove_folder(temporary)
            temporary.mkdir(parents=True)
        self.wait()
        if first:
            _write(shared, temporary / SHARED)
        _write(own, temporary / self._own)
        self.wait()
        if first:
            digests = {file.name: digest(file) for file in sorted(temporary.iterdir())}
            (temporary / MARKER).write_text(json.dumps({"fingerprint": self.fingerprint, "sha256": digests}), encoding="utf-8")
            put_folder(temporary, path)

    def _give_up(self, path: Path) -> None:
        """Make room. The first process still writes when another gives up: what it leaves, the next attempt removes."""
        if self.where.first:
            remove_folder(self._unfinished(path))
        else:
            (self._unfinished(path) / self._own).unlink(missing_ok=True)

    def _unfinished(self, path: Path) -> Path:
        """The folder that all processes of the job fill before it becomes ``path``; another job, taking over, has its own."""
        return path.with_name(f".{path.name}.{lease.mark()}.tmp")

    def _good(self) -> str:
        """The newest whole one, in words."""
        whole = [step for step in self._steps() if not self._problem(self._path(step))]
        return f"the one of step {whole[-1]} is whole" if whole else "there is none before it"

    @property
    def _own(self) -> str:
        return f"process-{self.where.rank}.pt"

    def remove_unfinished(self) -> None:
        """Remove what was cut short while it was written. For the first process."""
        for left in self.folder.glob(".step-*"):
            remove_folder(left)

    def _problem(self, path: Path) -> str | None:
        marker = _marker(path)
        if marker is None or not all((path / name).is_file() for name in (SHARED, self._own)):
            return "is incomplete"
        if marker["fingerprint"] != self.fingerprint:
            return "was written by a run with other settings"
        whole = all(digest(path / name) == known for name, known in marker["sha256"].items())
        return None if whole else "is damaged (checksum)"

    def _steps(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-" + 8 * "[0-9]"))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def _marker(path: Path) -> dict[str, Any] | None:
    """The marker of a checkpoint; None where it is missing or unreadable."""
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(marker, dict) and "fingerprint" in marker and isinstance(marker.get("sha256"), dict)
    return marker if known else None


def _write(state: State, path: Path) -> None:
    with path.open("wb") as file:  # ours, so that a full disk is an OSError
        torch.save(state, file)
    sync(path)


def _read(path: Path) -> State:
    return torch.load(path, map_location="cpu", weights_only=True)
