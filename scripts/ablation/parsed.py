"""What Snakemake's parse makes of its configuration: the studies, their runs, and what they are held against."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ablation.claims.model import Claim
from ablation.claims.of_study import claims_of
from ablation.recommended import Recommended, recommended_for
from ablation.study import Study, find_studies, load_study
from ablation.sweep import Run, expand
from ablation.yamlfile import as_flag


class Parsed(NamedTuple):
    """Each by the name of its study."""

    studies: dict[str, Study]
    recommended: dict[str, Recommended | None]
    runs: dict[str, dict[str, Run]]
    """The runs of a study by their ids."""
    claims: dict[str, dict[str, Claim]]
    attempt_oom: bool
    """Whether runs that are predicted not to fit are sent all the same."""


def parse_studies(config: Mapping[str, Any], folder: Path) -> Parsed:
    """The studies that ``config`` names, of ``folder``/studies, with all else in ``config`` laid over them.

    Whoever wrote the files: what they say is whole and can run, or there is a :class:`UserError`.
    """
    changes = dict(config)
    attempt_oom = as_flag("attempt_oom", changes.pop("attempt_oom", False))
    files = find_studies(changes.pop("studies", None), folder / "studies")
    studies = {name: load_study(path, changes) for name, path in files.items()}
    return Parsed(
        studies,
        {name: recommended_for(study, folder / "recommended") for name, study in studies.items()},
        {name: {run.id: run for run in expand(study, name)} for name, study in studies.items()},
        {name: claims_of(study, folder / "claims", folder / "hardware") for name, study in studies.items()},
        attempt_oom,
    )
