"""What the evaluation of a run found, kept beside its checkpoints until its own job has published it. Loads no torch."""

import json
from pathlib import Path
from typing import Any

from ablation.canonical import short_hash
from ablation.files import write_json
from ablation.modelcard import write_card
from ablation.sweep import Run


class Evaluated:
    """The evaluation of ``run`` in its ``folder``. ``trained``: the fingerprint of its training."""

    def __init__(self, run: Run, folder: Path, trained: str):
        self.run, self.folder, self.path = run, folder, folder / "state" / "evaluated.json"
        self.fingerprint = short_hash([trained, run.settings.evaluation.model_dump(mode="json")], 64)

    def discard(self) -> None:
        """Forget it: there is another training, or its job has ended."""
        self.path.unlink(missing_ok=True)

    def keep(self, found: dict[str, Any]) -> None:
        """Write down what was found."""
        write_json(self.path, {"fingerprint": self.fingerprint, "found": found})

    def found(self) -> dict[str, Any] | None:
        """What was found and not published; None where nothing was."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content["found"] if content.get("fingerprint") == self.fingerprint else None

    def publish(self, base: Path) -> None:
        """Put the whole result, metrics before and after, memory and time, in ``metrics.json``; beside it the card.

        The training is published already. ``base``: ``metrics.json`` of the pretrained model.
        """
        paths = (self.folder / "training.json", self.folder / "manifest.json", base)
        training, manifest, before = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
        was = {"metrics_before": before["metrics"], "items_before": before["items"]}
        record = {**training, "axes": self.run.axes, **self.found(), **was}
        write_card(self.run, self.folder, record, manifest)
        write_json(self.folder / "metrics.json", record)
