"""The demo's images: handwritten digits in the file that scikit-learn has of them, as a folder of classes."""

import gzip
import zlib
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablation.errors import UserError
from ablation.outside import MIB

FILE = "digits.csv.gz"
SIDE, LARGEST = 8, 16  # pixels, and the brightest of them
LARGEST_FILE = 16 * MIB  # bytes unpacked; scikit-learn's has 500,000
RIM = 1  # pixels of background around a digit before it is enlarged: many of them touch the border


def write_digits(source: Path, root: Path, size: int) -> None:
    """ROOT/CLASS/NUMBER.png for every digit in the folder ``source``: white on black, enlarged to ``size`` pixels a side."""
    for number, row in enumerate(_read(source / FILE)):
        pixels = np.round(row[:-1].reshape(SIDE, SIDE) * (255 / LARGEST)).astype(np.uint8)
        path = root / str(row[-1]) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.pad(pixels, RIM)).resize((size, size), Image.Resampling.BICUBIC).save(path)


def _read(path: Path) -> NDArray[np.int64]:
    """[N, 65]: the pixels, row by row, and the digit."""
    try:
        with gzip.open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UserError(f"{path}: unpacks to more than {LARGEST_FILE:,} bytes")
        rows = np.loadtxt(StringIO(content.decode("ascii")), delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as digits ({error})") from None
    limits = np.array([LARGEST] * SIDE * SIDE + [9])
    if rows.shape[1:] != limits.shape or (rows < 0).any() or (rows > limits).any():
        raise UserError(f"{path}: holds something else than {SIDE * SIDE} pixels from 0 to {LARGEST} and a digit in each line")
    return rows
