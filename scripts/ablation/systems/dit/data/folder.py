"""A folder of images: ROOT/CLASS/IMAGE, or images with captions in metadata.jsonl or in a .txt file beside each."""

import json
from collections.abc import Iterator
from pathlib import Path

from ablation.errors import UserError
from ablation.outside import MIB
from ablation.systems.dit.data.told import CAPTION_LENGTH, Candidates, Fault, Told, caption
from ablation.systems.opening import SUFFIXES

METADATA = "metadata.jsonl"  # as Hugging Face's imagefolder has it: file_name, text
LARGEST = 1024 * MIB  # bytes of the metadata
LONGEST = 4 * CAPTION_LENGTH  # bytes of a caption's file


def folder_images(root: Path, condition: str) -> Candidates:
    """The images below ``root`` with what is told of them."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}")
    if condition == "class":
        return _by_class(root)
    found = _by_metadata(root) if (root / METADATA).is_file() else _by_text(root)
    if not found.images:
        raise UserError(f"data.root: no image below {root} has a caption, in {METADATA} or in a .txt file beside it")
    return found


def _by_class(root: Path) -> Candidates:
    files = {folder.name: sorted(_pictures(folder)) for folder in sorted(root.iterdir()) if folder.is_dir()}
    classes = [name for name, pictures in files.items() if pictures]
    if not classes:
        raise UserError(f"data.root: {root} has no folder of images; a class is a folder: {root}/CLASS/IMAGE.jpg")
    images = [Told(path.relative_to(root).as_posix(), label) for label, name in enumerate(classes) for path in files[name]]
    stray = [Fault(path.name, "in no folder of a class") for path in sorted(root.iterdir()) if _is_picture(path)]
    return Candidates(images, classes, stray)


def _by_text(root: Path) -> Candidates:
    images, faults = [], []
    for path in sorted(_pictures(root)):
        file, text = path.relative_to(root).as_posix(), _read_text(path.with_suffix(".txt"))
        if text:
            images.append(Told(file, None, (text,)))
        else:
            faults.append(Fault(file, "no caption"))
    return Candidates(images, [], faults)


def _read_text(path: Path) -> str | None:
    if not path.is_file() or path.stat().st_size > LONGEST:
        return None
    try:
        return caption(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _by_metadata(root: Path) -> Candidates:
    images, faults = {}, []
    if (size := (root / METADATA).stat().st_size) > LARGEST:
        raise UserError(f"{root / METADATA}: holds {size:,} bytes; at most {LARGEST:,} are read")
    with (root / METADATA).open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            told = _row(line)
            if told is None:
                faults.append(Fault(f"{METADATA}, line {number}", "no file_name and text"))
            else:
                images.setdefault(told.file, []).extend(told.captions)
    return Candidates([Told(name, None, tuple(texts)) for name, texts in sorted(images.items())], [], faults)


def _row(line: str) -> Told | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        return None
    text = caption(row.get("text"))
    return Told(row["file_name"], None, (text,)) if text else None


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if _is_picture(path))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
