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

    NO_OBJECT = "box is not an object"
    KEY_TWICE = "key twice in a box"
    NO_LABEL = "missing or empty label"
    LABEL = "label is not text"
    LONG_LABEL = "too long label"
    SHAPE = "bbox is not four numbers"
    NO_NUMBER = "coordinate is not a number"
    NOT_WHOLE = "coordinate is not whole"
    RANGE = "coordinate out of range"
    SWAPPED = "swapped corners"
    EMPTY = "empty box"
    BOX_TWICE = "duplicate box"


class Bad(Exception):
    """A row or a box is of no use."""

    def __init__(self, cause: Cause, said: object = None):
        super().__init__(cause)
        self.fault = Fault(cause, "" if said is None else SHORT.repr(said))


class Fault(NamedTuple):
    """Why, and what stood there: the beginning of it as Python writes it, texts in quotes, on one line."""

    cause: Cause
    said: str
