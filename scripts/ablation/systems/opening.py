"""Opening pictures that nobody has vouched for: what the file is, and how much of it. What systems share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from ablation.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Pillow knows formats that start other programs; these do not."""
MOST_PIXELS = 100_000_000  # ETH3D's have 24 million, ImageNet's largest 68


class Unreadable(ValueError):
    """A picture that cannot be read: the kind of reason, a colon, and more."""


@contextmanager
def opened(source: Path | BinaryIO, most: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """The picture, of which only the head is read yet; to be decoded inside. Raises Unreadable, or FileNotFoundError."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > most:  # before its pixels take memory
                raise Unreadable(f"too many pixels: {image.width} x {image.height}")
            yield image
    except (UserError, Unreadable, FileNotFoundError):
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"is no {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        told = "" if getattr(error, "errno", None) else f": {error}"  # the system's errors name the file once more
        raise Unreadable(f"{type(error).__name__}{told}") from None
