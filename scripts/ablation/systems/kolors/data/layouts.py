"""Layouts: which picture, what it shows, and what is where. All sources of data end in such a file.

``layouts.jsonl``, a JSON object a line::

    {"image": "a/b.jpg", "width": 640, "height": 480, "caption": "...", "boxes": [{"label": "cat", "bbox": [x1, y1, x2, y2]}]}

bbox in whole thousandths of the upright picture, x to the right, y down, x1 < x2, y1 < y2. ``source.json``: the folder that the
paths start from; ``null`` is the folder of the file.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ablation.errors import UserError
from ablation.files import write_json, write_text
from ablation.systems.kolors.data.boxes import TWICE, Box, examine_boxes

LAYOUTS, SOURCE = "layouts.jsonl", "source.json"


class Layout(NamedTuple):
    """A picture by its path, its size upright, its caption, its boxes."""

    image: str
    width: int
    height: int
    caption: str
    boxes: tuple[Box, ...]


def write_layouts(layouts: Iterable[Layout], root: Path | None, folder: Path) -> None:
    """Both files into ``folder``; ``root`` is where the pictures are, None for ``folder`` itself."""
    lines = [json.dumps({**layout._asdict(), "boxes": [box._asdict() for box in layout.boxes]}) for layout in layouts]
    write_text(folder / LAYOUTS, "".join(f"{line}\n" for line in lines))
    write_json(folder / SOURCE, {"root": None if root is None else str(root)})


def read_layouts(folder: Path) -> list[Layout]:
    """The layouts of ``folder``. UserError naming the line that holds something else."""
    path = folder / LAYOUTS
    with path.open(encoding="utf-8") as file:
        return [_layout(path, number, line) for number, line in enumerate(file, 1)]


def image_root(folder: Path) -> Path:
    """The folder that the paths of its layouts start from."""
    root = json.loads((folder / SOURCE).read_text(encoding="utf-8"))["root"]
    return folder if root is None else Path(root)


def parse_json(text: str) -> object:
    """JSON, with NaN and Infinity as None and :data:`~boxes.TWICE` for an object that names a key twice. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, object]]) -> object:
    found = dict(pairs)
    return found if len(found) == len(pairs) else TWICE


def _layout(path: Path, number: int, line: str) -> Layout:
    try:
        value = parse_json(line)
        examined = examine_boxes(value["boxes"])
        if examined.bad:
            raise ValueError(examined.bad[0][1].cause)
        texts, sizes = (value["image"], value["caption"]), (value["width"], value["height"])
        if not all(isinstance(text, str) for text in texts) or not all(type(size) is int and size > 0 for size in sizes):
            raise TypeError("image and caption are text, width and height whole numbers")
        return Layout(value["image"], *sizes, value["caption"], examined.boxes)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}, line {number}: no layout ({error}); delete {path.parent} to prepare it anew") from None
