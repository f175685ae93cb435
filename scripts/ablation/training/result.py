"""The result of a run, kept beside its checkpoints: a job that finds one publishes it and trains nothing."""

import json
from pathlib import Path
from typing import Any

from ablation.attempts import Journal
from ablation.files import remove_folder, write_json, write_text
from ablation.formats import KEY, SCHEMA
from ablation.manifest import files_in, manifest_of
from ablation.state import State
from ablation.sweep import Run
from ablation.yamlfile import dump_yaml

NOT_KEPT = ("oom", "failed")  # outcomes that may be others on another day


class Result:
    """The result in a run's ``folder``. ``fingerprint``: of the run's settings and inputs, as checkpoints have it."""

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.path, self.fingerprint = folder, folder / "state" / "result.json", fingerprint

    def discard(self) -> None:
        """Forget what an attempt before has found."""
        self.path.unlink(missing_ok=True)

    def keep(self, training: dict[str, Any], surroundings: dict[str, Any]) -> None:
        """Write down what was found, and on what."""
        write_json(self.path, {"fingerprint": self.fingerprint, "training": training, "surroundings": surroundings})

    def found(self) -> dict[str, Any] | None:
        """What an attempt found; None if none came to an end."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content["training"] if content.get("fingerprint") == self.fingerprint else None

    def whole(self) -> bool:
        """Whether there is a result that needs no training, with what was trained."""
        found = self.found()
        if found is None or found["outcome"] in NOT_KEPT:
            return False
        return "saved" not in found or (self.folder / found["saved"]).exists()

    def publish(self, run: Run, inputs: dict[str, Any]) -> None:
        """Put the run's files where the workflow looks for them; its checkpoints go. ``inputs``: hashes of what it read."""
        content, journal = json.loads(self.path.read_text(encoding="utf-8")), Journal(self.folder)
        training, fingerprint = content["training"], self.fingerprint
        trained = "steps" in training
        write_text(self.folder / "run.yaml", dump_yaml({KEY: SCHEMA, **run.training_view}))
        write_text(
            self.folder / "history.csv", (self.folder / "state/history.csv").read_text(encoding="utf-8") if trained else ""
        )
        files = files_in(self.folder, training.get("saved"))
        manifest = manifest_of(run, content["surroundings"], inputs, journal.attempts(fingerprint), files)
        write_json(self.folder / "manifest.json", manifest)
        write_json(self.folder / "training.json", {KEY: SCHEMA, **training, "attempts": journal.summary(fingerprint)})
        if training["outcome"] not in NOT_KEPT:
            for checkpoint in (self.folder / "state").glob("step-*"):
                remove_folder(checkpoint)
            State(self.folder).forget_others()
