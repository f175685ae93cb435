"""Pictures that nobody has vouched for, read to eight bits a channel: the one reader of all systems.

What a file is, how large, and whether it is one picture is known before its pixels take memory. It is read right, or refused
with a :class:`Kind`; docs/data.md has the table. Colour profiles are not applied, as no released loader applies them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base as Tag

from ablation.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""Pillow knows formats that start other programs; these do not."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".ppm", ".pgm"),  # not read, and so counted
)
"""Names that promise a picture, in lower case."""
MOST_PIXELS = 100_000_000  # ETH3D's have 24 million, ImageNet's largest 68
LEAST_CONTRAST = 65  # of 255, in a picture of 16 bits: numbers of 14 bits stored as they are reach 64, those of 12 only 16

BEGINNINGS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8")  # of files in FORMATS
HEIF = (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1", b"avif", b"avis")
LFS = b"version https://git-lfs"
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L")
"""Pillow's names of the colours that are converted; not I and F, numbers of 32 bits whose white is not known."""


class Kind(StrEnum):
    """Why a picture is refused; what is counted."""

    EMPTY = "empty file"
    POINTER = "Git LFS pointer"
    HEIF = "HEIC or AVIF"
    FOREIGN = "another format"
    LARGE = "too many pixels"
    SEVERAL = "several pictures in one file"
    DAMAGED = "damaged or truncated"
    VALUES = "values of no known colour"
    LEVELS = "too few of 16 bits in use"
    TURNED = "a TIFF with an orientation"
    CLEAR = "shows nothing"
    UNOPENED = "not to be opened"


class Unreadable(ValueError):
    """A picture that cannot be read: its kind, a colon, and what to do or what was found."""

    def __init__(self, kind: Kind, told: str):
        super().__init__(f"{kind}: {told}")
        self.kind = kind


@contextmanager
def opened(source: Path | BinaryIO, most: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """The picture, of which only the head is read yet; to be decoded inside. Raises Unreadable, or FileNotFoundError."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > most:  # before its pixels take memory
                raise Unreadable(Kind.LARGE, f"{image.width} x {image.height}, at most {most:,} are read")
            if _several(image):
                raise Unreadable(Kind.SEVERAL, f"{image.format}; save the one that is meant")
            yield image
    except (UserError, Unreadable, FileNotFoundError):
        raise
    except Image.DecompressionBombError:
        raise Unreadable(Kind.LARGE, f"at most {most:,} are read") from None
    except UnidentifiedImageError:
        raise _unidentified(source) from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        if getattr(error, "errno", None):  # the system's, whose text names the file once more
            raise Unreadable(Kind.UNOPENED, type(error).__name__) from None
        raise Unreadable(Kind.DAMAGED, f"{type(error).__name__}: {error}") from None


def _several(image: Image.Image) -> bool:
    """Frames, pages, or a camera's raw file, which begins with a preview. The second picture in a phone's JPEG is one, too."""
    preview = image.format == "TIFF" and image.tag_v2.get(Tag.NewSubfileType, 0) & 1
    return bool(preview) or (getattr(image, "is_animated", False) and image.format != "MPO")


def read_rgb(source: Path | BinaryIO, *, upright: bool, background: str | None, most: int = MOST_PIXELS) -> Image.Image:
    """The picture in RGB, as :func:`as_rgb` converts it; ``most`` pixels. Raises Unreadable, or FileNotFoundError."""
    with opened(source, most) as image:
        return as_rgb(image, upright=upright, background=background)


def as_rgb(image: Image.Image, *, upright: bool, background: str | None) -> Image.Image:
    """What :func:`opened` gave, in RGB, on ``background`` where it is transparent.

    None for ``background`` drops the transparency, and shows what colours stand there. ``upright``: see :func:`eight_bits`.
    """
    image = eight_bits(image, upright=upright)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    if background is None:
        return image.convert("RGB")
    if image.getchannel("A").getextrema()[1] == 0:
        raise Unreadable(Kind.CLEAR, "it is transparent all over")
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")


def eight_bits(image: Image.Image, *, upright: bool) -> Image.Image:
    """What :func:`opened` gave, in a mode of 8 bits a channel; ``upright``: turned as its EXIF orientation says."""
    deep = _bits(image) > 8
    _check_values(image, deep)
    if upright:
        image = ImageOps.exif_transpose(image)
    elif image.format == "TIFF" and image.tag_v2.get(Tag.Orientation, 1) != 1:
        raise Unreadable(Kind.TURNED, "decoding turns it, and it must be as it is stored; save it without the tag")
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8))
    if deep:
        _check_levels(image)
    return image


def _bits(image: Image.Image) -> int:
    """Bits a channel in the file, 8 for all formats that know no more."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(Tag.BitsPerSample, (1,)))
    return 16 if image.format == "PNG" and ";16" in str(image.tile) else 8


def _check_values(image: Image.Image, deep: bool) -> None:
    """What Pillow decodes to other colours than the file means, without saying so."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    wrong = {
        f"mode {image.mode}": image.mode not in MODES,
        "signed numbers": any(form not in (1, 4) for form in tags.get(Tag.SampleFormat, ())),
        "16 bits whose 0 is white": deep and tags.get(Tag.PhotometricInterpretation) == 0,
        "16 bits in planes": deep and tags.get(Tag.PlanarConfiguration, 1) != 1,
        "16 bits with one transparent colour": deep and "transparency" in image.info,
    }
    for what, found in wrong.items():
        if found:
            raise Unreadable(Kind.VALUES, f"{what}; save it with 8 bits a channel")


def _check_levels(image: Image.Image) -> None:
    """A sensor's 12 or 14 bits would be all but black, and nobody would see why."""
    extrema = image.getextrema()
    channels = [extrema] if isinstance(extrema[0], int) else extrema
    lowest, highest = zip(*(channels[:-1] if image.mode.endswith("A") else channels), strict=True)
    if max(highest) - min(lowest) < LEAST_CONTRAST:
        told = f"{min(lowest)} to {max(highest)} of 255, as 14 bits stored in 16 are; save it stretched, in 8 bits a channel"
        raise Unreadable(Kind.LEVELS, told)


def _unidentified(source: Path | BinaryIO) -> Unreadable:
    """What the file is instead, by its first bytes."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(len(LFS))
    else:
        source.seek(0)
        head = source.read(len(LFS))
    if not head:
        return Unreadable(Kind.EMPTY, "0 bytes")
    if head == LFS:
        return Unreadable(Kind.POINTER, "`git lfs pull` fetches the picture")
    if head[4:8] == b"ftyp" and head[8:12] in HEIF:
        return Unreadable(Kind.HEIF, "save it as JPEG or PNG")
    if head.startswith(BEGINNINGS):
        return Unreadable(Kind.DAMAGED, "its head is, or it is of a variety that is not read")
    return Unreadable(Kind.FOREIGN, f"is no {', '.join(FORMATS)}")
