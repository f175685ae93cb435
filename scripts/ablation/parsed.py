"""What Snakemake's parse makes of its configuration: the studies, their runs, and what they are held against."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ablation import resolved
from ablation.baseline import check_baseline
from ablation.claims.model import Claim
from ablation.claims.of_study import claims_of
from ablation.errors import UserError
from ablation.hardware import load_card
from ablation.recommended import Recommended, recommended_for
from ablation.study import Study, find_studies, load_study, study_model
from ablation.sweep import Run, expand
from ablation.systems import SYSTEMS
from ablation.verify.choice import FEW
from ablation.yamlfile import as_flag

OF_NO_STUDY = ("studies", "reference", "runs", "attempt_oom")  # what a configuration says beside the settings of a study
SINGULAR = {"study": "studies", "run": "runs"}


class Parsed(NamedTuple):
    """Each by the name of its study."""

    studies: dict[str, Study]
    recommended: dict[str, Recommended | None]
    runs: dict[str, dict[str, Run]]
    """The runs of a study by their ids."""
    claims: dict[str, dict[str, Claim]]
    attempt_oom: bool
    """Whether runs that are predicted not to fit are sent all the same."""
    reference: Path | None
    """The folder of a study with results that is the source of the study, where one is named."""
    verified: Any
    """Which runs ``verify`` trains again, as :func:`ablation.verify.choice.chosen` takes it."""


def parse_studies(config: Mapping[str, Any], folder: Path) -> Parsed:
    """The studies that ``config`` names, of ``folder``/studies, with all else in ``config`` laid over them.

    With a ``reference``, the study is the one whose results lie in that folder, as it was resolved then. Whoever wrote the
    files: what they say is whole and can run, or there is a :class:`UserError`.
    """
    changes = dict(config)
    _check_names(changes)
    attempt_oom = as_flag("attempt_oom", changes.pop("attempt_oom", False))
    reference, verified = changes.pop("reference", None), changes.pop("runs", FEW)
    if reference is not None:
        return _of_reference(reference, changes, attempt_oom, verified)
    files = find_studies(changes.pop("studies", None), folder / "studies")
    studies = {name: load_study(path, changes) for name, path in files.items()}
    runs = {name: {run.id: run for run in expand(study, name)} for name, study in studies.items()}
    for name, study in studies.items():
        load_card(study.hardware, folder / "hardware")
        check_baseline(study, name, runs[name].values())
    return Parsed(
        studies,
        {name: recommended_for(study, folder / "recommended") for name, study in studies.items()},
        runs,
        {name: claims_of(study, folder / "claims", folder / "hardware") for name, study in studies.items()},
        attempt_oom,
        None,
        verified,
    )


def parse_started(results: Path, jobs: Sequence[Mapping[str, str]]) -> Parsed | None:
    """The studies of ``jobs`` (their wildcards) as the start that sent them has resolved them; None where that is not there.

    A job that names no study, such as one that prepares data, is of some study of its scale.
    """
    named = [results / job["scale"] / job["study"] / "study.json" for job in jobs if "study" in job]
    scales = {job["scale"] for job in jobs if "study" not in job and "scale" in job}
    files = [path for path in named if path.exists()]
    files += [path for scale in scales for path in results.glob(f"{scale}/*/study.json")]
    studies = dict(filter(None, map(_started, dict.fromkeys(files))))
    runs = {name: {run.id: run for run in expand(study, name)} for name, study in studies.items()}
    nothing, no_claims = dict.fromkeys(studies), {name: {} for name in studies}
    return Parsed(studies, nothing, runs, no_claims, False, None, FEW) if studies else None


def _started(path: Path) -> tuple[str, Study] | None:
    """Name and study; None for a file of an earlier version, which no job that is sent now is of."""
    try:
        return resolved.load_study(path)
    except UserError:
        return None


def _check_names(config: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` for what is like a name of the configuration itself, and is no setting of any study."""
    for name in sorted(config.keys() - set(OF_NO_STUDY)):
        near = [SINGULAR[name]] if name in SINGULAR else get_close_matches(name, OF_NO_STUDY, n=1, cutoff=0.85)
        if near and not any(name in study_model(system).model_fields for system in SYSTEMS):
            raise UserError(f"--config: {name}: no such setting; did you mean {near[0]}?")


def _of_reference(reference: Any, changes: Mapping[str, Any], attempt_oom: bool, verified: Any) -> Parsed:
    """The study of a folder with results, held against nothing else."""
    if not isinstance(reference, str):
        raise UserError("reference: give the folder of a study that has results, such as docs/example")
    if laid := sorted(set(changes) - {"studies", "scale"}):
        raise UserError(f"reference: its runs are trained as they were; leave out {', '.join(laid)}")
    name, study = resolved.load_study(Path(reference) / "study.json")
    runs = {run.id: run for run in expand(study, name)}
    return Parsed({name: study}, {name: None}, {name: runs}, {name: {}}, attempt_oom, Path(reference), verified)
