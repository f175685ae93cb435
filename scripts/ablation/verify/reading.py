"""The files of a run's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation.errors import UserError
from ablation.formats import KEY
from ablation.outside import MIB, read_json
from ablation.yamlfile import load_yaml

MOST = 256 * MIB


def read_record(path: Path) -> dict[str, Any]:
    """``metrics.json`` or ``training.json``."""
    content = read_json(path, MOST)
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no record of a run")
    return content


def read_settings(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """``run.yaml``, and of the evaluation what the manifest says, if it does."""
    view = load_yaml(folder / "run.yaml")
    if not isinstance(view, dict):
        raise UserError(f"{folder / 'run.yaml'}: are no settings of a run")
    view.pop(KEY, None)
    judged = manifest.get("settings", {}).get("settings", {}).get("evaluation")
    return view if judged is None else {**view, "evaluation": judged}
