"""COCO's layout: ROOT/PART/*.jpg, and ROOT/annotations/{instances,captions}_PART.json."""

from pathlib import Path
from typing import Any

from ablation.errors import UserError, is_control
from ablation.outside import MIB, read_json
from ablation.systems.dit.data.told import Candidates, Fault, Told, caption

KINDS = {"class": "instances", "caption": "captions"}
LARGEST = 1024 * MIB  # bytes; COCO's own have 450 MB
LINK = "https://cocodataset.org/#download"


def annotation_file(root: Path, part: str, condition: str) -> Path:
    """Where the classes or captions of a part are."""
    return root / "annotations" / f"{KINDS[condition]}_{part}.json"


def coco_images(root: Path, part: str, condition: str) -> Candidates:
    """The images that the annotations name. The class of an image is that of its largest object, crowds aside."""
    path = annotation_file(root, part, condition)
    content = _read(path)
    names, faults = _names(content["images"])
    if condition == "class":
        classes = {
            row["id"]: row["name"] for row in _list(content, "categories") if _has(row, id=int) and caption(row.get("name"))
        }
        order = {number: label for label, number in enumerate(sorted(classes))}
        told = _largest(content["annotations"], order)
        images = [Told(file, told[number]) for number, file in names.items() if number in told]
        reason = "no object that has a class"
    else:
        classes = {}
        captions = _captions(content["annotations"])
        images = [Told(file, None, tuple(captions[number])) for number, file in names.items() if number in captions]
        told, reason = captions, "no caption"
    faults += [Fault(file, reason) for number, file in names.items() if number not in told]
    if not images:
        raise UserError(f"{path}: names no image with a {condition}; is it the file of another part?")
    return Candidates(sorted(images), [classes[number] for number in sorted(classes)], faults)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is not there; COCO's images and annotations: {LINK}")
    content = read_json(path, LARGEST)
    lists = ("images", "annotations")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise UserError(f"{path}: has no lists `images` and `annotations`; is it a file of COCO?")
    return content


def _list(content: dict[str, Any], name: str) -> list[Any]:
    return found if isinstance(found := content.get(name), list) else []


def _names(rows: list[Any]) -> tuple[dict[int, str], list[Fault]]:
    """File names by the number of the image; rows without either are faults."""
    names = {row["id"]: row["file_name"] for row in rows if _is_named(row)}
    bad = [Fault(str(row)[:80], "no id and file_name") for row in rows if not _is_named(row)]
    return names, bad


def _is_named(row: Any) -> bool:
    return _has(row, id=int, file_name=str) and not any(map(is_control, row["file_name"]))


def _largest(rows: list[Any], order: dict[int, int]) -> dict[int, int]:
    """The class of the largest object by the number of the image."""
    found: dict[int, tuple[float, int]] = {}
    for row in rows:
        if not _has(row, image_id=int, category_id=int, area=(int, float)) or row.get("iscrowd"):
            continue
        if row["category_id"] in order:
            this = (row["area"], order[row["category_id"]])
            found[row["image_id"]] = max(this, found.get(row["image_id"], (-1.0, 0)))
    return {image: label for image, (_, label) in found.items()}


def _captions(rows: list[Any]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for row in rows:
        if _has(row, image_id=int) and (text := caption(row.get("caption"))):
            found.setdefault(row["image_id"], []).append(text)
    return found


def _has(row: Any, **kinds: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), kind) for name, kind in kinds.items())
