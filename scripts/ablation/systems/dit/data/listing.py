"""The images of a source with what is told of each; bad ones are left out and named. Which are trained on, which are kept."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from ablation.errors import UserError, is_control, readable
from ablation.files import write_csv, write_json
from ablation.systems.dit.data.coco import coco_images
from ablation.systems.dit.data.digits import write_digits
from ablation.systems.dit.data.folder import folder_images
from ablation.systems.dit.data.images import read_picture
from ablation.systems.dit.data.told import Candidates, Fault, Told, inside
from ablation.systems.dit.settings import Data
from ablation.systems.opening import Unreadable

log = logging.getLogger(__name__)

LIST, LEFT_OUT = "images.json", "left_out.csv"
SHOWN = 5  # names of each kind of fault
FEWEST = 2  # images on either side of the split: the Fréchet distance needs the spread of two

T = TypeVar("T")


class Found(NamedTuple):
    """The images of a source, by name; the names of their classes; and what was left out."""

    images: list[Told]
    classes: list[str]
    faults: list[Fault]


class Listed(NamedTuple):
    """What :func:`write_list` wrote."""

    root: Path
    images: list[Told]
    classes: list[str]


def find_images(data: Data, out: Path) -> Found:
    """Open the images of the source ``data``; digits are written to ``out``. UserError where fewer than four can be used."""
    root = source_root(data, out)
    if data.source == "digits":
        write_digits(Path(data.root), root, data.size)
    candidates = _candidates(data, root)
    chosen = [candidates.images[number] for number in spread(len(candidates.images), data.samples)]
    faults, images = list(candidates.faults), []
    for told in tqdm(chosen, desc="opening images", disable=None):
        fault = _unusable(root, told.file)
        faults += [fault] if fault else []
        images += [] if fault else [told]
    report = _report(faults)
    if len(images) < 2 * FEWEST:
        needed = f"{2 * FEWEST} are the least, {FEWEST} to train on and {FEWEST} to judge by"
        raise UserError(f"data.root: {len(images)} images below {root} can be used; {needed}{report}")
    if faults:
        log.warning("%d images are left out:%s", len(faults), report)
    return Found(images, candidates.classes, faults)


def source_root(data: Data, out: Path) -> Path:
    """The folder that the images' names are below."""
    return {"digits": out, "folder": Path(data.root), "coco": Path(data.root) / data.part}[data.source]


def write_list(found: Found, root: Path, out: Path) -> None:
    """``images.json``: the images below ``root``; ``left_out.csv``: the others."""
    images = [told._asdict() for told in found.images]
    write_json(out / LIST, {"root": None if root == out else str(root), "classes": found.classes, "images": images})
    if found.faults:
        write_csv(out / LEFT_OUT, [{key: readable(text) for key, text in fault._asdict().items()} for fault in found.faults])


def read_list(folder: Path) -> Listed:
    """The images that :func:`write_list` listed in ``folder``."""
    written = json.loads((folder / LIST).read_text(encoding="utf-8"))
    root = folder if written["root"] is None else Path(written["root"])
    return Listed(root, [_told(row) for row in written["images"]], written["classes"])


def split(items: Sequence[T], test: float) -> tuple[list[T], list[T]]:
    """Items to train on, and the share ``test`` that is kept, evenly spread; at least two of each of four or more."""
    kept = set(kept_places(len(items), test))
    trained = [item for number, item in enumerate(items) if number not in kept]
    return trained, [item for number, item in enumerate(items) if number in kept]


def kept_places(count: int, test: float) -> list[int]:
    """Which of ``count`` items, four or more, are kept for evaluation."""
    kept = min(count - FEWEST, max(FEWEST, round(test * count)))
    return [int((number + 0.5) * count / kept) for number in range(kept)]


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` numbers, at most ``count``, spread evenly over ``range(count)``."""
    wanted = min(count, wanted)
    return np.linspace(0, count - 1, wanted).round().astype(int).tolist() if wanted else []


def _candidates(data: Data, root: Path) -> Candidates:
    """What the source says that there is; no image is opened."""
    if data.source == "coco":
        return coco_images(Path(data.root), data.part, data.condition)
    return folder_images(root, data.condition)


def _unusable(root: Path, file: str) -> Fault | None:
    if not inside(root, file):
        return Fault(file, "leads out of the folder")
    if any(map(is_control, file)):
        return Fault(file, "a name with control characters")
    try:
        read_picture(root / file)
    except FileNotFoundError:
        return Fault(file, "is not there")
    except Unreadable as error:
        return Fault(file, f"cannot be read: {error.kind}")
    return None


def _report(faults: Sequence[Fault]) -> str:
    """A line for each reason: how many, and the first few names."""
    lines = []
    for reason, count in Counter(fault.reason for fault in faults).most_common():
        names = [fault.file for fault in faults if fault.reason == reason][:SHOWN]
        lines.append(f"\n  {count} {reason}: {', '.join(map(repr, names))}{' ...' * (count > SHOWN)}")
    return "".join(lines)


def _told(row: dict[str, Any]) -> Told:
    return Told(row["file"], row["label"], tuple(row["captions"]))
