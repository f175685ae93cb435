"""Pictures of a folder by their names: where the path leads, and what it shows."""

from pathlib import Path, PurePosixPath

from PIL import Image

from ablation.systems.kolors.data.causes import Bad, Cause
from ablation.systems.opening import Unreadable, read_rgb

MOST_PIXELS = 64_000_000
NARROWEST = 50
"""Largest ratio of the sides; Qwen2-VL refuses 200."""


def place_of(root: Path, image: str) -> Path:
    """The file that ``image`` names below ``root``, links followed. Raises Bad where it is elsewhere."""
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise Bad(Cause.LEAVES, image)
    try:
        found = (root / path).resolve()
        if not found.is_relative_to(root.resolve()):
            raise Bad(Cause.LEAVES, image)
        if not found.is_file():
            raise Bad(Cause.ABSENT, image)
    except (OSError, RuntimeError, ValueError):  # too long a name, links in a circle, half a character
        raise Bad(Cause.ABSENT, image) from None
    return found


def read_image(root: Path, image: str) -> Image.Image:
    """The whole picture in RGB as people see it: upright, on white where it is transparent. Raises Bad.

    The release's loader (dreambooth/train_dreambooth_lora.py) turns it, too, but shows the colours beneath the transparency.
    """
    path = place_of(root, image)
    try:
        picture = read_rgb(path, upright=True, background="white", most=MOST_PIXELS)
    except Unreadable as error:
        raise Bad(Cause(error.kind), image) from None
    except FileNotFoundError:
        raise Bad(Cause.ABSENT, image) from None
    if max(picture.size) > NARROWEST * min(picture.size):
        raise Bad(Cause.TOO_NARROW, image)
    return picture
