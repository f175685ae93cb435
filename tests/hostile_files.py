"""Files as strangers may send them, and the memory that all of them together may take."""

import io
import os
import resource
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hostile import TEXTS
from PIL import Image

from ablation.systems.opening import FORMATS

MOST_MEMORY = 500 * 2**20  # of a file of tests
JUNK = tuple(text.encode("utf-8", "surrogatepass") for text in TEXTS)


@contextmanager
def little_memory() -> Iterator[None]:
    """All inputs together; where a file lies about its size, that would be terabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY


class Bang:
    """What runs a command where a pickle is trusted."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def picture(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)).save(buffer, form)
    return buffer.getvalue()


def png(width: int, height: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


PICTURES = {form: picture(form) for form in FORMATS}
