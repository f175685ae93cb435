"""Where each run of a study stands, by the content of its folder: finished, to be trained, or to be trained again and why.

Light, and without ``.snakemake``: Snakemake asks at its start for every run.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ablation.changes import OBJECTIVE, Change, changed_inputs, changed_settings, of_results, of_training
from ablation.errors import UserError
from ablation.files import digest
from ablation.manifest import hashes_of, settings_hash, settings_of, without_places
from ablation.seal import FILE as SEAL
from ablation.state import State
from ablation.sweep import Run

FINISHED, EVALUATE, RESUME, AGAIN, NEW = "finished", "evaluate", "resume", "again", "new"


class InputFolders(NamedTuple):
    """Where the workflow keeps what runs read: ``data``, the prepared parts, and ``hashes`` of weights."""

    data: Path
    hashes: Path


class Standing(NamedTuple):
    """The state of a run, the steps that it need not take, and what has changed since it was trained or begun."""

    run: Run
    state: str
    steps: int = 0
    changes: tuple[Change, ...] = ()

    @property
    def done(self) -> bool:
        """Whether its published result is that of the run as it is asked for."""
        return self.state == FINISHED


def standing_of(run: Run, folder: Path, folders: InputFolders) -> Standing:
    """Where ``run`` stands, whose files are in ``folder``."""
    if not folder.is_dir():
        return Standing(run, NEW)
    published = _json(folder / "manifest.json") if (folder / "metrics.json").exists() else None
    if published is None:
        return _unpublished(run, folder, folders)
    try:
        changes = _since(published, run, folders)
    except (AttributeError, KeyError, TypeError) as error:
        manifest = folder / "manifest.json"
        raise UserError(f"{manifest}: is damaged ({error}); remove {folder} to have the run trained again") from None
    if not changes:
        return Standing(run, FINISHED)
    state, again = State(folder), of_training(changes)
    kept = not again and state.owner() is not None and state.has_result()
    return Standing(run, EVALUATE if kept else AGAIN, 0, tuple(again or changes))


def base_holds(run: Run, path: Path, folders: InputFolders) -> bool:
    """Whether the evaluation of the pretrained model in ``path`` is of what ``run`` reads; an older one does not tell."""
    known = _json(path)
    return known is None or "inputs" not in known or not changed_inputs(known["inputs"], inputs_now(run, folders))


def inputs_now(run: Run, folders: InputFolders) -> dict[str, Any]:
    """The content of what ``run`` reads, as a manifest has it; None for what is not there."""
    data = tuple(part.id for part in run.settings.parts())
    return _inputs(tuple(run.settings.weight_files().items()), data, folders)


@cache
def _inputs(weights: Iterable[tuple[str, str]], data: Iterable[str], folders: InputFolders) -> dict[str, Any]:
    there = {name: Path(path) for name, path in weights}
    return {
        "weights": {name: hashes_of(path, folders.hashes) if path.exists() else None for name, path in there.items()},
        "data": {part: digest(folders.data / part / SEAL) for part in data},
    }


def _since(published: Mapping[str, Any], run: Run, folders: InputFolders) -> list[Change]:
    """What has changed since a result was published with this manifest; of one without hashes only its objective is known."""
    objective = published.get("objective", 1)
    if not {"settings", "settings_sha256", "inputs"} <= published.keys():
        return [Change(OBJECTIVE, objective, run.objective)] if objective != run.objective else []
    inputs = changed_inputs(published["inputs"], inputs_now(run, folders))
    if _same_settings(published, run):  # of thousands of runs, nearly always
        return inputs
    views = ({**published["settings"], "objective": objective}, {**settings_of(run), "objective": run.objective})
    return of_results(changed_settings(*views)) + inputs


def _same_settings(published: Mapping[str, Any], run: Run) -> bool:
    evaluation = without_places(run.settings.evaluation.model_dump(mode="json"))
    same = published["settings_sha256"] == settings_hash(run.training_view)
    return same and published["settings"]["settings"].get("evaluation") == evaluation


def _unpublished(run: Run, folder: Path, folders: InputFolders) -> Standing:
    """Where a run stands that has no result which is published."""
    state = State(folder)
    if (before := state.owner()) is None:
        return Standing(run, NEW)
    changes = changed_settings(before["view"], run.training_view) + changed_inputs(before["inputs"], inputs_now(run, folders))
    if changes:
        return Standing(run, AGAIN if state.steps() else NEW, 0, tuple(changes))
    if state.has_result():
        return Standing(run, EVALUATE)
    return Standing(run, RESUME, max(state.steps())) if state.steps() else Standing(run, NEW)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
