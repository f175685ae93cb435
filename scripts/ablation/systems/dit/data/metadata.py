"""Captions in metadata.jsonl or metadata.csv, as the Hugging Face Hub's image folders have them: file_name and text."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ablation.errors import UserError
from ablation.outside import MIB, read_text
from ablation.systems.dit.data.told import Fault, caption

FILES = ("metadata.jsonl", "metadata.csv")
FILE_NAME = "file_name"
TEXTS = ("text", "caption", "captions", "prompt")  # keys of a caption, one of them
LARGEST = 1024 * MIB  # bytes


def captions_in(root: Path, files: Iterable[Path]) -> tuple[dict[str, list[str]], list[Fault]]:
    """The captions by the name of their image below ``root``, which rows give as seen from the file's folder; rows without."""
    captions: dict[str, list[str]] = {}
    faults = []
    for path in files:
        for place, row in _rows(path):
            told = _told(path, row)
            if told is None:
                faults.append(Fault(f"{path.relative_to(root)}, {place}", f"no {FILE_NAME} and text"))
            else:
                name, texts = told
                captions.setdefault(_below(path.parent.relative_to(root).as_posix(), name), []).extend(texts)
    return captions, faults


def _below(folder: str, name: str) -> str:
    """``name`` as seen from the root; one that leads anywhere else stays what it is, to be refused."""
    return (PurePosixPath(folder) / name).as_posix() if folder != "." and not name.startswith("/") else name.removeprefix("./")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each row with its place; what is no row is None."""
    lines = read_text(path, LARGEST)
    if path.suffix == ".csv":
        csv.field_size_limit(LARGEST)
        yield from (
            (f"row {number}", row) for number, row in enumerate(csv.DictReader(lines.splitlines(keepends=True)), start=2)
        )
        return
    for number, line in enumerate(lines.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError):
                yield f"line {number}", None


def _told(path: Path, row: Any) -> tuple[str, list[str]] | None:
    if not isinstance(row, dict):
        return None
    name, text = row.get(_only(path, row, _file_keys(row), "the image's file")), row.get(_only(path, row, TEXTS, "the caption"))
    texts = [found for one in (text if isinstance(text, list) else [text]) if (found := caption(one))]
    return (name, texts) if isinstance(name, str) and name and texts else None


def _file_keys(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(key for key in row if isinstance(key, str) and (key == FILE_NAME or key.endswith(f"_{FILE_NAME}")))


def _only(path: Path, row: dict[str, Any], keys: Iterable[str], what: str) -> str | None:
    """The one of ``keys`` that the row has. UserError where it has several."""
    there = [key for key in keys if key in row]
    if len(there) > 1:
        raise UserError(f"{path}: {what} may be in {' or in '.join(there)}; keep one of these keys")
    return there[0] if there else None
