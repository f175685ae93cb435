"""Opening pictures that nobody has vouched for: where the path leads, what the file is, how much of it."""

from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from ablation.systems.kolors.data.causes import Bad, Cause

FORMATS = ("JPEG", "PNG", "WEBP")
"""Pillow knows formats that start other programs; these do not."""
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
    """The whole picture, upright, RGB, on white where it is transparent. Raises Bad."""
    path = place_of(root, image)
    try:
        with Image.open(path, formats=FORMATS) as opened:
            _check_size(opened, image)
            upright = ImageOps.exif_transpose(opened)
            upright.load()
            return _on_white(upright)
    except Bad:
        raise
    except Image.DecompressionBombError:
        raise Bad(Cause.TOO_LARGE, image) from None
    except Exception:  # decoders raise whatever a damaged file leads them to
        raise Bad(Cause.UNREADABLE, image) from None


def _check_size(opened: Image.Image, image: str) -> None:
    """By the file's head, before its pixels take memory."""
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise Bad(Cause.TOO_LARGE, image)
    if max(width, height) > NARROWEST * min(width, height):
        raise Bad(Cause.TOO_NARROW, image)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
