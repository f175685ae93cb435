"""What a source says of its images, before one of them is opened."""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ablation.errors import is_control
from ablation.outside import leads_out

CAPTION_LENGTH = 2000  # characters; a longer text is no caption


class Told(NamedTuple):
    """An image and what is told of it."""

    file: str
    """Below the folder of the images."""
    label: int | None
    """Its class."""
    captions: tuple[str, ...] = ()


class Fault(NamedTuple):
    """Why an image is left out."""

    file: str
    reason: str


class Candidates(NamedTuple):
    """All images that a source names, in the order of their names; the names of the classes; and what cannot be one."""

    images: list[Told]
    classes: list[str]
    faults: list[Fault]


def inside(root: Path, file: str) -> bool:
    """Whether ``file`` lies below ``root``, links followed."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\0" in file:
        return False
    return not leads_out(root, root / path)


def caption(text: object) -> str | None:
    """``text`` with single spaces; None if it is none, empty, too long, or holds control characters."""
    words = " ".join(text.split()) if isinstance(text, str) else ""
    return words if 0 < len(words) <= CAPTION_LENGTH and not any(map(is_control, words)) else None
