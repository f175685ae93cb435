"""The seal of a prepared folder: a file with the checksums of all others, by which later damage is found before it counts."""

import json
from collections.abc import Iterable
from pathlib import Path

from ablation.errors import UserError
from ablation.files import digest, write_json

FILE = ".sha256.json"
NEEDS = ".needs.json"


def seal(folder: Path) -> None:
    """Write down what ``folder`` holds."""
    write_json(folder / FILE, {file.relative_to(folder).as_posix(): digest(file) for file in files_of(folder)})


def sealed(folder: Path) -> dict[str, str] | None:
    """SHA-256 of each file as it was sealed; None where there is no seal."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def check(folders: Iterable[Path]) -> None:
    """Raise :class:`UserError` that names the first file which is not what it was when its folder was sealed."""
    for folder in folders:
        for name, known in (sealed(folder) or {}).items():
            if digest(folder / name) != known:
                raise UserError(
                    f"{folder / name}: damaged since it was prepared (checksum); remove the folder {folder} and start the"
                    " workflow again, which prepares it anew"
                )


def seal_needs(folder: Path, needs: Iterable[Path]) -> None:
    """Write down which folders ``folder`` was made from, as they are now."""
    write_json(folder / NEEDS, {need.name: digest(need / FILE) for need in needs})


def outdated(folder: Path) -> bool:
    """Whether a folder beside ``folder`` that it was made from has another content since. Older ones do not tell."""
    try:
        known = json.loads((folder / NEEDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    now = {name: digest(folder.parent / name / FILE) for name in known}
    return any(now[name] not in (None, content) for name, content in known.items())


def files_of(folder: Path) -> list[Path]:
    """The files in a folder, less the hidden ones, such as Snakemake's time stamps."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
