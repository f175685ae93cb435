"""Picture files of every kind, all showing one drawing; what they may be read as; what each system reads them as."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from hostile_files import png as png_of_colours
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT, BLOCK = 48, 40, 8
ORIENTATION = 0x0112
WEBP = {"lossless": True, "exact": True}


def drawing() -> Pixels:
    """Blocks of one colour each, no two alike [H, W, 3]."""
    shape = HEIGHT // BLOCK, WIDTH // BLOCK, 3
    return np.kron(np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.ones((BLOCK, BLOCK, 1), np.uint8))


def transparency() -> Pixels:
    """Clear at the left, half clear beside it [H, W]."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : 2 * BLOCK], alpha[:, 2 * BLOCK : 3 * BLOCK] = 0, 128
    return alpha


def grey(colours: Pixels) -> Pixels:
    """[H, W], as Pillow weighs the colours."""
    return np.asarray(Image.fromarray(colours).convert("L"))


def deep(values: Pixels) -> NDArray[np.uint16]:
    """16 bits, with something in the lower ones."""
    low = np.arange(WIDTH, dtype=np.uint16).reshape(-1, *[1] * (values.ndim - 2))
    return values.astype(np.uint16) * 256 + low


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}), **options)
    return buffer.getvalue()


def turned_by_its_tag(form: str, orientation: int = 6, **options) -> bytes:
    """The drawing with an EXIF orientation; 6: to be turned clockwise."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(Image.fromarray(drawing()), form, exif=exif, **options)


def png(values: NDArray, colour_type: int, key: tuple[int, ...] = ()) -> bytes:
    """A PNG of 8 or 16 bits [H, W(, C)]; 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA; ``key``: the colour that is transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8 * values.itemsize, colour_type, 0, 0, 0)
    clear = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: NDArray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def inks(form: str) -> bytes:
    """The drawing in cyan, magenta and yellow alone."""
    return saved(Image.merge("CMYK", [*Image.fromarray(255 - drawing()).split(), Image.new("L", (WIDTH, HEIGHT))]), form)


def ycck() -> bytes:
    """As Photoshop writes it: inks as luminance and chrominance, and said so in Adobe's marker."""
    luminance = Image.fromarray(255 - drawing()).convert("YCbCr").split()
    inverted = [Image.fromarray(255 - np.asarray(channel)) for channel in luminance]  # Pillow inverts what it writes
    content = bytearray(saved(Image.merge("CMYK", [*inverted, Image.new("L", (WIDTH, HEIGHT))]), "JPEG"))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


def palette(form: str, alpha: Pixels | None = None) -> bytes:
    image = Image.fromarray(drawing()).quantize(256)
    if alpha is None:
        return saved(image, form)
    of_each = bytearray(b"\xff" * 256)
    for number, opacity in zip(np.asarray(image).ravel(), alpha.ravel(), strict=True):
        of_each[number] = opacity
    return saved(image, form, transparency=bytes(of_each))


def several(form: str, **options) -> bytes:
    other = Image.fromarray(255 - drawing())
    return saved(Image.fromarray(drawing()), form, save_all=True, append_images=[other], **options)


class Sample(NamedTuple):
    """A file and what it holds."""

    content: bytes
    shows: Pixels
    """The colours of its pixels as they are stored [H, W, 3]."""
    alpha: Pixels | None = None
    """How opaque they are [H, W]; None where they are so without saying it."""
    turns: int = 0
    """Clockwise quarters by which it says that it is to be turned."""

    def readings(self) -> dict[str, Pixels]:
        """All that it may be read as, by the table's words."""
        if self.alpha is not None:
            alpha = self.alpha[..., None] / 255
            return {"on white": self.shows * alpha + 255 * (1 - alpha), "transparency dropped": self.shows}
        if self.turns:
            return {"turned": np.rot90(self.shows, -self.turns), "as stored": self.shows}
        return {"right": self.shows}

    def read_as(self, pixels: Pixels) -> str:
        """The reading that ``pixels`` are, within what JPEG's rounding allows."""
        for words, expected in self.readings().items():
            if pixels.shape == expected.shape and np.abs(pixels - expected).max() <= 6:
                return words
        raise AssertionError(f"read as none of {list(self.readings())}")


def samples(shows: Pixels, *contents: bytes, alpha: Pixels | None = None, turns: int = 0) -> list[Sample]:
    return [Sample(content, np.broadcast_to(np.atleast_3d(shows), (HEIGHT, WIDTH, 3)), alpha, turns) for content in contents]


def kinds() -> dict[str, list[Sample]]:
    """Each row of the table with files of its kind."""
    return {**_colours(), **_colours_of_other_kinds(), **_said_in_the_head(), **_no_pictures()}


def _colours() -> dict[str, list[Sample]]:
    colours, levels = drawing(), grey(drawing())
    image, bilevel = Image.fromarray(colours), Image.fromarray(levels).convert("1")
    forms = ("JPEG", "PNG", "BMP", "TIFF")
    planes = tiff(colours.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    inverse = tiff(255 - levels, photometric="miniswhite")
    shallow = [saved(Image.fromarray(levels), form) for form in forms]
    return {
        "8-bit colour: JPEG, PNG, WebP, BMP, TIFF": samples(
            colours, planes, saved(image, "WEBP", **WEBP), *(saved(image, form) for form in forms)
        ),
        "8-bit grey; 1 bit": samples(levels, inverse, *shallow)
        + samples(np.asarray(bilevel.convert("L")), *(saved(bilevel, form) for form in ("PNG", "TIFF", "BMP"))),
        "palette: PNG, GIF, BMP, TIFF": samples(colours, *(palette(form) for form in ("PNG", "GIF", "BMP", "TIFF"))),
        "CMYK: JPEG, TIFF; YCCK: JPEG": samples(colours, inks("JPEG"), inks("TIFF"), ycck()),
    }


def _colours_of_other_kinds() -> dict[str, list[Sample]]:
    colours, levels = drawing(), grey(drawing())
    wide, grey16 = deep(colours), deep(levels)
    planes = tiff(wide.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    orders = [tiff(grey16, byteorder=order) for order in "<>"]
    packed = saved(Image.fromarray(grey16), "TIFF", compression="tiff_lzw")
    return {
        "16-bit grey or colour: PNG, TIFF": samples(levels, png(grey16, 0), packed, *orders)
        + samples(colours, png(wide, 2), *(tiff(wide, photometric="rgb", byteorder=order) for order in "<>")),
        "10 to 14 bits stored as they are in 16": samples(
            colours,
            *(png(grey16 >> unused, 0) for unused in (2, 4, 6)),
            *(png(wide >> 2, 2), tiff(wide >> 4, photometric="rgb"), tiff(grey16 >> 4)),
        ),
        "numbers of 32 bits or signed; 16-bit TIFF in planes, or whose 0 is white": samples(
            colours,
            *(tiff(grey16.astype(form)) for form in (np.float32, np.int32, np.int16)),
            *(tiff(levels.astype(np.int8)), tiff(grey16, photometric="miniswhite"), planes),
        ),
        "16 bits with one transparent colour": samples(
            colours, png(grey16, 0, key=(int(grey16[0, 0]),)), png(wide, 2, key=tuple(map(int, wide[0, 0])))
        ),
    }


def _said_in_the_head() -> dict[str, list[Sample]]:
    colours, levels, alpha = drawing(), grey(drawing()), transparency()
    rgba, both = np.dstack([colours, alpha]), np.dstack([levels, alpha])
    clear, gone = Image.fromarray(rgba), Image.fromarray(np.dstack([colours, 0 * alpha]))
    without_one = np.where((colours == colours[0, 0]).all(-1), 0, 255).astype(np.uint8)
    files = [saved(clear, "PNG"), saved(clear, "TIFF"), saved(clear, "WEBP", **WEBP), png(deep(rgba), 6), palette("PNG", alpha)]
    grey_tiff = tiff(both, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    turned = [turned_by_its_tag("JPEG"), turned_by_its_tag("PNG"), turned_by_its_tag("WEBP", **WEBP)]
    return {
        "transparency: RGBA of 8 or 16 bits, grey, palette, one colour": samples(colours, *files, alpha=alpha)
        + samples(levels, png(both, 4), png(deep(both), 4), grey_tiff, alpha=alpha)
        + samples(colours, png(colours, 2, key=tuple(map(int, colours[0, 0]))), alpha=without_one),
        "transparent all over": samples(colours, saved(gone, "PNG"), saved(gone, "WEBP", **WEBP), alpha=0 * alpha),
        "EXIF orientation: JPEG, PNG, WebP": samples(colours, *turned, turns=1),
        "orientation: TIFF": samples(colours, turned_by_its_tag("TIFF", 6), turns=1)
        + samples(colours, turned_by_its_tag("TIFF", 3), turns=2),
        "JPEG with a preview behind it (MPO)": samples(colours, several("MPO", quality=100, subsampling=0)),
        "animated GIF, WebP, PNG; TIFF of several pages; a raw file's preview": samples(
            colours, *map(several, ("GIF", "WEBP", "PNG", "TIFF")), tiff(colours, photometric="rgb", subfiletype=1)
        ),
    }


def _no_pictures() -> dict[str, list[Sample]]:
    colours, noise = drawing(), np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    whole = [saved(Image.fromarray(noise), form) for form in ("PNG", "WEBP", "TIFF")]
    whole += [saved(Image.fromarray(noise[..., :3]), form) for form in ("JPEG", "BMP", "GIF")]
    image, pointer = Image.fromarray(colours), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    return {
        "truncated": samples(colours, *(content[: len(content) * 6 // 10] for content in whole), b"\x89PNG\r\n"),
        "0 bytes": samples(colours, b""),
        "Git LFS pointer": samples(colours, pointer),
        "HEIC, AVIF": samples(colours, heic, saved(image, "AVIF")),
        "any other: PPM, JPEG 2000, SVG": samples(colours, saved(image, "PPM"), saved(image, "JPEG2000"), b"<svg/>"),
        "a bomb: 2 gigapixels in a few bytes": samples(colours, png_of_colours(50_000, 40_000, b"")),
    }


Reader = Callable[[Path, bytes], Pixels]
"""What a system makes of a file's content [H, W, 3], in a folder of the test's. Raises Refused."""


class Refused(Exception):
    """By the cause that the system counts or says."""


def outcome(read: Reader, folder: Path, files: list[Sample]) -> str:
    """In the table's words: how all files of a kind are read, or why each is not."""
    found = {_outcome(read, folder / str(number), sample) for number, sample in enumerate(files)}
    assert len(found) == 1 or all(words.startswith("*") for words in found), f"read in different ways: {found}"
    return " or ".join(sorted(found))


def _outcome(read: Reader, folder: Path, sample: Sample) -> str:
    folder.mkdir(parents=True)
    try:
        return sample.read_as(read(folder, sample.content).astype(float))
    except Refused as error:
        return f"*{error}*"
