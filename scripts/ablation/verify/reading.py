"""The files of a run's folder."""

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


def read_settings(folder: Path) -> dict[str, Any]:
    """``run.yaml``."""
    view = load_yaml(folder / "run.yaml")
    if not isinstance(view, dict):
        raise UserError(f"{folder / 'run.yaml'}: are no settings of a run")
    view.pop(KEY, None)
    return view
