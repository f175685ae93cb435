"""The table of pictures and captions: UTF-8 text, ``path<TAB>caption`` a line, lines ending in LF or CRLF.

Nothing is quoted: a quotation mark is one, and a caption holds no tab. A first line ``image<TAB>caption`` is a heading. Rows
go by the number of their line, the first is 1.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ablation.errors import UserError
from ablation.systems.kolors.data.boxes import LONGEST_CAPTION, plain
from ablation.systems.kolors.data.causes import Bad, Cause

HEADING = ("image", "caption")
LONGEST_LINE = 20_000
"""Bytes; what is longer is no row."""


class Row(NamedTuple):
    """A picture's path below the folder, and its caption."""

    line: int
    image: str
    caption: str


def read_table(path: Path) -> Iterator[tuple[int, Row | Bad]]:
    """Every line of the table but the heading, with its number. UserError where there is no table."""
    if not path.is_file():
        raise UserError(f"data.labelled.table: {path} is not there; a line a picture: its path, a tab, its caption")
    with path.open("rb") as file:
        for number, line in enumerate(bounded_lines(file, LONGEST_LINE), 1):
            try:
                row = _row(number, line)
            except Bad as error:
                yield number, error
                continue
            if number > 1 or (row.image.lower(), row.caption.lower()) != HEADING:
                yield number, row


def checked_row(line: int, image: object, caption: object) -> Row:
    """A row that names a picture and says something about it. Raises Bad."""
    if not isinstance(image, str) or not isinstance(caption, str):
        raise Bad(Cause.ROW, [image, caption])
    text = plain(caption)
    if not image or not text or len(text) > LONGEST_CAPTION or not _is_path(image):
        raise Bad(Cause.ROW, [image, caption])
    return Row(line, image, text)


def _is_path(image: str) -> bool:
    """Whether it is one line of real characters; white space within is kept as it is."""
    return plain(image) is not None and len(image.splitlines()) == 1


def _row(number: int, line: bytes) -> Row:
    if len(line) > LONGEST_LINE:
        raise Bad(Cause.ROW, line[:100])
    try:
        fields = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r").split("\t")
    except UnicodeDecodeError:
        raise Bad(Cause.ROW, line) from None
    if len(fields) != len(HEADING):
        raise Bad(Cause.ROW, line)
    return checked_row(number, *fields)


def bounded_lines(file: BinaryIO, longest: int) -> Iterator[bytes]:
    """The lines of a file that may be anything; of one above ``longest`` bytes, only so many and one more."""
    while line := file.readline(longest + 1):
        yield line
        while not line.endswith(b"\n") and (line := file.readline(longest)):
            pass
