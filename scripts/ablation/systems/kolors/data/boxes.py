"""A labelled box, and every check that stands between what somebody wrote and its use."""

import math
import unicodedata
from typing import NamedTuple

from ablation.systems.kolors.data.causes import OTHER_KEY, Bad, Cause, Fault
from ablation.systems.kolors.data.conventions import SCALE, Convention, Size

LARGEST = 1e6
"""No coordinate is as large, in any unit."""
LONGEST_LABEL = 100
LONGEST_CAPTION = 2000
TWICE = object()
"""Stands for a JSON object that names a key twice."""
CUT = Fault(Cause.CUT, None)
"""Stands for the entry at which an answer breaks off, all that would have followed included."""
KEPT = Convention()
"""What layouts are kept in."""


class Box(NamedTuple):
    """A label and left, top, right, bottom in thousandths of the picture."""

    label: str
    bbox: tuple[int, int, int, int]


class Examined(NamedTuple):
    """The boxes of a list that can be used, and what is wrong with the others, by their place in the list."""

    boxes: tuple[Box, ...]
    bad: list[tuple[int, Fault]]


def examine_boxes(values: list[object], convention: Convention = KEPT, size: Size = (SCALE, SCALE)) -> Examined:
    """A bad box costs itself, not the others: a picture with an object that has no box is none the worse for it."""
    boxes, bad = {}, []
    for number, value in enumerate(values):
        try:
            box = checked_box(value, convention, size)
            if box in boxes:
                raise Bad(Cause.BOX_TWICE, value)
            boxes[box] = None
        except Bad as error:
            bad.append((number, error.fault))
    return Examined(tuple(boxes), bad)


def checked_box(value: object, convention: Convention = KEPT, size: Size = (SCALE, SCALE)) -> Box:
    """The box that ``{"label": ..., "bbox": [...]}`` tells of a picture of ``size`` pixels. Raises Bad; never mends."""
    if isinstance(value, Fault):
        raise Bad(*value)
    if value is TWICE:
        raise Bad(Cause.KEY_TWICE)
    if not isinstance(value, dict):
        raise Bad(Cause.NO_OBJECT, value)
    label = _label(value.get("label"))
    if convention.key not in value:
        found, cause = OTHER_KEY[convention.key]
        raise Bad(cause if found in value else Cause.NO_KEY, value)
    return Box(label, _corners(numbers_of(value[convention.key]), convention, size))


def numbers_of(value: object) -> tuple[float, float, float, float]:
    """The four numbers that ``value`` lists. Raises Bad."""
    if not isinstance(value, list) or len(value) != 4:
        raise Bad(Cause.SHAPE, value)
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float) or (number != number):
            raise Bad(Cause.NO_NUMBER, value)
        if abs(number) > LARGEST:
            raise Bad(Cause.RANGE, value)
    return tuple(value)


def corners_of(numbers: tuple[float, ...], convention: Convention) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, in the unit that they are written in."""
    left, top, third, fourth = numbers
    return (left, top, left + third, top + fourth) if convention.sides else (left, top, third, fourth)


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


def _corners(numbers: tuple[float, ...], convention: Convention, size: Size) -> tuple[int, int, int, int]:
    """In whole thousandths; from another unit, rounded. Raises Bad."""
    said = list(numbers)
    corners = corners_of(numbers, convention)
    if convention.unit != "thousandths":
        corners = [round(SCALE * at / side) for at, side in zip(corners, convention.frame(size) * 2, strict=True)]
    if not all(0 <= at <= SCALE for at in corners):
        raise Bad(Cause.RANGE, said)
    if not all(math.floor(at) == at for at in corners):  # 0.2 may be meant as a share of the picture
        raise Bad(Cause.NOT_WHOLE, said)
    left, top, right, bottom = (int(at) for at in corners)
    if left > right or top > bottom:
        raise Bad(Cause.SWAPPED, said)
    if left == right or top == bottom:
        raise Bad(Cause.EMPTY, said)
    if right - left == bottom - top == 1:
        raise Bad(Cause.ONE, said)
    return left, top, right, bottom
