"""``state/`` of a run's folder: its checkpoints, history and result belong to one training.

When settings or inputs change, the files of the previous training move aside and the log names them. They come back when the
change is undone.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablation.changes import changed_inputs, changed_settings
from ablation.files import remove_folder, write_json

log = logging.getLogger(__name__)

OWNER = "belongs_to.json"
ASIDE = "unused-"
STEP = "step-" + 8 * "[0-9]"
OF_A_TRAINING = ("history.csv", "result.json", "evaluated.json")


class State:
    """What a run's ``folder`` holds of trainings that have not been published."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "state"

    def owner(self) -> dict[str, Any] | None:
        """Whose it is: ``fingerprint``, ``view`` (settings) and ``inputs`` (hashes of weights and data); None for nobody's."""
        try:
            found = json.loads((self.path / OWNER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and {"fingerprint", "view", "inputs"} <= found.keys() else None

    def steps(self) -> list[int]:
        """Steps after which there is a checkpoint."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.path.glob(STEP))

    def has_result(self) -> bool:
        """Whether a training has ended here and is yet to be evaluated and published."""
        return (self.path / "result.json").exists()

    def take(self, fingerprint: str, view: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Make it that of one training: what is of another goes aside, and what of this one was set aside comes back.

        Whoever calls it holds the run's lease. Killed in between, it goes on where it was.
        """
        before, now = self.owner(), {"fingerprint": fingerprint, "view": dict(view), "inputs": dict(inputs)}
        if before is None or before["fingerprint"] != fingerprint:
            self._set_aside(before, now)
            write_json(self.path / OWNER, now)
        self._bring_back(fingerprint)

    def forget_others(self) -> None:
        """Remove what was set aside, and say so: the run has its result."""
        for folder in sorted(self.path.glob(f"{ASIDE}*")):
            log.info("%s: removed, since the run has ended with the settings that it has now", folder)
            remove_folder(folder)

    def _set_aside(self, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
        if not (left := list(self._left())):
            return
        aside = self._aside(before["fingerprint"] if before else "unknown")
        aside.mkdir(parents=True, exist_ok=True)
        steps = ", ".join(map(str, self.steps())) or "none"
        log.warning(
            "%s: what an earlier training left (checkpoints after steps: %s) is not used, since %s; it is kept in %s until the"
            " run ends",
            *(self.folder, steps, _why(before, now), aside),
        )
        for path in left:
            _move(path, aside / path.name)

    def _bring_back(self, fingerprint: str) -> None:
        aside = self._aside(fingerprint)
        if not aside.is_dir():
            return
        log.warning("%s: goes on with what was set aside in %s", self.folder, aside)
        for path in sorted(aside.iterdir()):
            _move(path, (self.path if path.name in OF_A_TRAINING or path.match(STEP) else self.folder) / path.name)
        aside.rmdir()

    def _left(self) -> Iterator[Path]:
        """Files and folders of a training, with what it has saved, if it came to its end; the result last."""
        yield from sorted(self.path.glob(STEP))
        if saved := self._saved():
            yield self.folder / saved
        yield from (path for name in OF_A_TRAINING if (path := self.path / name).exists())

    def _saved(self) -> str | None:
        try:
            name = json.loads((self.path / "result.json").read_text(encoding="utf-8"))["training"].get("saved")
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        return name if isinstance(name, str) and (self.folder / name).exists() else None

    def _aside(self, fingerprint: str) -> Path:
        return self.path / f"{ASIDE}{fingerprint[:8]}"


def _move(path: Path, target: Path) -> None:
    """By renaming; what is there already is of the same training, and older."""
    if target.is_dir():
        remove_folder(target)
    path.replace(target)


def _why(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    if before is None:
        return "it does not say which settings it belongs to"
    changes = changed_settings(before["view"], now["view"]) + changed_inputs(before["inputs"], now["inputs"])
    return ", ".join(map(str, changes)) or "another version of this program wrote it"
