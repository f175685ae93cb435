"""The resolved study as a file: what Snakemake decided at parse time, for the jobs to read."""

import json
import re
from pathlib import Path

from pydantic import ValidationError

from ablation import formats
from ablation.canonical import short_hash
from ablation.errors import UserError
from ablation.explain import explain
from ablation.files import write_json
from ablation.settings import NAME
from ablation.study import Study, study_model
from ablation.sweep import Run, expand
from ablation.systems import SYSTEMS
from ablation.yamlfile import load_yaml


def save_study(path: Path, name: str, study: Study) -> None:
    """Write the study with all defaults and overrides filled in."""
    write_json(path, {formats.KEY: formats.SCHEMA, "name": name, "study": study.model_dump(mode="json")})


def load_study(path: Path) -> tuple[str, Study]:
    """Name and study of a file that :func:`save_study` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a resolved study ({error})") from None
    name, study = (content.get(key) if isinstance(content, dict) else None for key in ("name", "study"))
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or not isinstance(study, dict):
        raise UserError(f"{path}: is no resolved study (it has no name and study)")
    formats.check(path, content.get(formats.KEY))
    system = study.get("system")
    if not isinstance(system, str) or system not in SYSTEMS:
        raise UserError(f"{path}: system = {system!r}: no such system\n  known: {', '.join(SYSTEMS)}")
    model = study_model(system)
    try:
        return name, model.model_validate(study)
    except ValidationError as error:
        raise UserError(explain(error, model, study, lambda _: f"{path}: ")) from None


def runs_of(study: Path) -> list[Run]:
    """All runs of a resolved study."""
    name, resolved = load_study(study)
    return expand(resolved, name)


def load_run(study: Path | None, run: str, fingerprint: str | None = None) -> Run:
    """The run ``run`` of a resolved study, or, without one, the run whose ``run.yaml`` is at the path ``run``.

    ``fingerprint`` guards against a study that was changed while the job waited in a queue.
    """
    if study is None:
        view = load_yaml(Path(run))
        formats.check(Path(run), view.get(formats.KEY))
        return Run.from_view(view)
    found = next((candidate for candidate in runs_of(study) if candidate.id == run), None)
    if found is None or (fingerprint is not None and fingerprint_of(found) != fingerprint):
        raise UserError(f"{study}: the study changed while this job was waiting; its run {run} is no longer the one asked for")
    return found


def fingerprint_of(run: Run) -> str:
    """A short hash of all that the run's training and its evaluation depend on."""
    return short_hash([run.training_view, run.settings.evaluation.model_dump(mode="json")], 12)
