"""Checkpoints from which a run continues bit for bit: written whole, checked when read, the last good one always kept."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ablation.files import replace_folder, sync

STATE, MARKER = "state.pt", "DONE"


class Checkpoints:
    """The checkpoints of one run. ``fingerprint`` ties them to the run's settings: others are not resumed from."""

    def __init__(self, folder: Path, fingerprint: str, keep: int):
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after optimizer step ``step``, then remove what is no longer kept."""
        with replace_folder(self.folder / f"step-{step:08d}") as temporary:
            torch.save(state, temporary / STATE)
            sync(temporary / STATE)
            marker = {"fingerprint": self.fingerprint, "sha256": _digest(temporary / STATE)}
            (temporary / MARKER).write_text(json.dumps(marker))
        for old in self._steps()[: -self.keep]:
            shutil.rmtree(self._path(old))

    def latest(self, complain) -> dict[str, Any] | None:
        """The newest state that is whole and of this run; ``complain`` is told of each that is not."""
        for step in reversed(self._steps()):
            path = self._path(step)
            if problem := self._problem(path):
                complain(f"{path}: {problem}; using the one before")
                continue
            return torch.load(path / STATE, map_location="cpu", weights_only=True)
        return None

    def discard_others(self) -> None:
        """Remove checkpoints of other settings; they must neither be resumed nor counted."""
        for step in self._steps():
            marker = _marker(self._path(step))
            if marker is not None and marker["fingerprint"] != self.fingerprint:
                shutil.rmtree(self._path(step))

    def _problem(self, path: Path) -> str | None:
        marker = _marker(path)
        if marker is None or not (path / STATE).is_file():
            return "is incomplete"
        if marker["fingerprint"] != self.fingerprint:
            return "was written by a run with other settings"
        return None if _digest(path / STATE) == marker["sha256"] else "is damaged (checksum)"

    def _steps(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def _marker(path: Path) -> dict[str, str] | None:
    """The marker of a checkpoint; None where it is missing or unreadable."""
    try:
        marker = json.loads((path / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and {"fingerprint", "sha256"} <= set(marker) else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
