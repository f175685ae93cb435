"""Why a row or a box cannot be used."""

import reprlib
from enum import StrEnum
from typing import NamedTuple

from ablation.systems.opening import Kind

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 160
SHORT.maxlevel = 3


class Cause(StrEnum):
    """All there is to count; first what costs the row, then what costs the box."""

    ROW = "malformed row"
    TWICE = "duplicate row"
    LEAVES = "path leaves the folder"
    ABSENT = "absent image"
    EMPTY_FILE = Kind.EMPTY
    POINTER = Kind.POINTER
    HEIF = Kind.HEIF
    FOREIGN = Kind.FOREIGN
    TOO_LARGE = Kind.LARGE
    SEVERAL = Kind.SEVERAL
    DAMAGED = Kind.DAMAGED
    VALUES = Kind.VALUES
    LEVELS = Kind.LEVELS
    TURNED = Kind.TURNED
    CLEAR = Kind.CLEAR
    UNOPENED = Kind.UNOPENED
    TOO_NARROW = "too narrow image"
    UNANSWERED = "no answer"
    ANSWER = "malformed answer"
    BESIDE = "text beside the JSON"
    NO_LIST = "answer is not a list"
    NO_BOXES = "no boxes left"

    CUT = "answer cut off, complete boxes are kept"
    NO_OBJECT = "box is not an object"
    KEY_TWICE = "key twice in a box"
    NO_LABEL = "missing or empty label"
    LABEL = "label is not text"
    LONG_LABEL = "too long label"
    NO_BBOX = "no key bbox, but bbox_2d"
    NO_BBOX_2D = "no key bbox_2d, but bbox"
    NO_KEY = "no key for the box"
    SHAPE = "bbox is not four numbers"
    NO_NUMBER = "coordinate is not a number"
    NOT_WHOLE = "coordinate is not whole"
    RANGE = "coordinate out of range"
    SWAPPED = "swapped corners"
    EMPTY = "empty box"
    ONE = "box of one thousandth (a share?)"
    BOX_TWICE = "duplicate box"
    LOOP = "drifting in a loop"


OTHER_KEY = {"bbox": ("bbox_2d", Cause.NO_BBOX), "bbox_2d": ("bbox", Cause.NO_BBOX_2D)}
"""For each key that may be declared, the other one, and what it is called when that stands there."""

WRITTEN_OTHERWISE = {Cause.NO_BBOX, Cause.NO_BBOX_2D, Cause.NOT_WHOLE, Cause.RANGE, Cause.SWAPPED, Cause.ONE}
"""What boxes come to that follow another convention than the declared one."""


class Bad(Exception):
    """A row or a box is of no use."""

    def __init__(self, cause: Cause, said: object = None):
        super().__init__(cause)
        self.fault = Fault(cause, "" if said is None else SHORT.repr(said))


class Fault(NamedTuple):
    """Why, and what stood there: of a :class:`Bad`, the beginning of it as Python writes it, texts in quotes, on one line."""

    cause: Cause
    said: object
