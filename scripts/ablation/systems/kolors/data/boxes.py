"""A labelled box, and every check that stands between what somebody wrote and its use."""

import math
import unicodedata
from typing import NamedTuple

from ablation.systems.kolors.data.causes import Bad, Cause, Fault

SCALE = 1000
"""Coordinates go from 0 to this, whatever the picture's size."""
LONGEST_LABEL = 100
LONGEST_CAPTION = 2000
TWICE = object()
"""Stands for a JSON object that names a key twice."""


class Box(NamedTuple):
    """A label and left, top, right, bottom in thousandths of the picture."""

    label: str
    bbox: tuple[int, int, int, int]


class Examined(NamedTuple):
    """The boxes of a list that can be used, and what is wrong with the others, by their place in the list."""

    boxes: tuple[Box, ...]
    bad: list[tuple[int, Fault]]


def examine_boxes(values: list[object]) -> Examined:
    """A bad box costs itself, not the others: a picture with an object that has no box is none the worse for it."""
    boxes, bad = {}, []
    for number, value in enumerate(values):
        try:
            box = checked_box(value)
            if box in boxes:
                raise Bad(Cause.BOX_TWICE, value)
            boxes[box] = None
        except Bad as error:
            bad.append((number, error.fault))
    return Examined(tuple(boxes), bad)


def checked_box(value: object) -> Box:
    """The box that ``{"label": ..., "bbox": [x1, y1, x2, y2]}`` tells. Raises Bad; never mends."""
    if value is TWICE:
        raise Bad(Cause.KEY_TWICE)
    if not isinstance(value, dict):
        raise Bad(Cause.NO_OBJECT, value)
    return Box(_label(value.get("label")), _corners(value.get("bbox")))


def plain(text: str) -> str | None:
    """``text`` on one line; None where it holds control characters or halves of characters, which no text has."""
    line = " ".join(text.split())
    return None if any(unicodedata.category(character) in ("Cc", "Cs") for character in line) else line


def _label(value: object) -> str:
    if value is None or value == "":
        raise Bad(Cause.NO_LABEL)
    if not isinstance(value, str):
        raise Bad(Cause.LABEL, value)
    label = plain(value)
    if label is None:
        raise Bad(Cause.LABEL, value)
    if not label:
        raise Bad(Cause.NO_LABEL, value)
    if len(label) > LONGEST_LABEL:
        raise Bad(Cause.LONG_LABEL, value)
    return label


def _corners(value: object) -> tuple[int, int, int, int]:
    if not isinstance(value, list) or len(value) != 4:
        raise Bad(Cause.SHAPE, value)
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float) or (number != number):
            raise Bad(Cause.NO_NUMBER, value)
    if not all(0 <= number <= SCALE for number in value):
        raise Bad(Cause.RANGE, value)
    if not all(math.floor(number) == number for number in value):  # 0.2 may be meant as a share of the picture
        raise Bad(Cause.NOT_WHOLE, value)
    left, top, right, bottom = (int(number) for number in value)
    if left > right or top > bottom:
        raise Bad(Cause.SWAPPED, value)
    if left == right or top == bottom:
        raise Bad(Cause.EMPTY, value)
    return left, top, right, bottom
