"""What the workflow brings: configuration files and the demos' weights and data, wherever it lies.

Whoever uses it from a folder of their own adds theirs, and a file of the same name there comes first.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from ablation.files import replace_folder, replacing

HOME = Path(__file__).parents[2]
RESOURCES = "resources"


def config_files(folder: Path) -> dict[str, Path]:
    """The YAML files of ``folder`` by name, with those of the folder of that name that the workflow brings."""
    places = (HOME / "config" / folder.name, folder)
    found = {path.stem: path for place in places for path in place.glob("*.yaml")}
    return {name: found[name] for name in sorted(found)}


def own_or_shipped(path: Path) -> Path:
    """``path``, or where there is none the file of that name that the workflow brings."""
    return path if path.exists() else HOME / path


def bring(paths: Iterable[str]) -> list[str]:
    """Copy what is named below ``resources/``, is not here, and comes with the workflow; returns what was copied.

    A copy, not a link: a newer version of the workflow elsewhere must not look like changed weights.
    """
    named = {path for path in map(Path, paths) if path.parts[:1] == (RESOURCES,) and ".." not in path.parts}
    lacking = sorted(path for path in named if not path.exists() and (HOME / path).exists())
    for path in lacking:
        _copy(HOME / path, path)
    return [str(path) for path in lacking]


def _copy(source: Path, target: Path) -> None:
    """With the time of ``source``, and whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        with replace_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
    else:
        with replacing(target) as temporary:
            shutil.copy2(source, temporary)
