"""Generated pictures beside the true ones, with the boxes that were asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ablation.systems.kolors.data.dataset import Placed

SIDE, HEAD, GAP = 192, 18, 6  # pixels: of a picture, of the words above it, and between pictures
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
COLUMNS = ("layout", "true picture", "without the layout", "with the layout")
FONT_SIZE = 12


class Shown(NamedTuple):
    """A row of a sheet."""

    caption: str
    placed: Placed
    true: Image.Image
    without: Image.Image
    made: Image.Image


def save_sheet(path: Path, rows: Sequence[Shown]) -> None:
    """For each of ``rows`` its caption above the layout and three pictures, the boxes drawn on all of them."""
    height = HEAD + SIDE + GAP
    sheet = Image.new("RGB", (len(COLUMNS) * (SIDE + GAP), HEAD + len(rows) * height), "white")
    for column, words in enumerate(COLUMNS):
        write(sheet, (column * (SIDE + GAP), 0), words, SIDE)
    for number, row in enumerate(rows):
        top = HEAD + number * height
        write(sheet, (0, top), row.caption, sheet.width)
        plan = Image.new("RGB", (SIDE, SIDE), "#f2f2f2")
        for column, picture in enumerate((plan, row.true, row.without, row.made)):
            sheet.paste(boxed(picture, row.placed, labels=picture is plan), (column * (SIDE + GAP), top + HEAD))
    sheet.save(path)


def boxed(picture: Image.Image, placed: Placed, labels: bool) -> Image.Image:
    """``picture`` at the size of a sheet with a frame for each box, and its label if asked."""
    drawn = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(drawn)
    for number, (label, corners) in enumerate(zip(placed.labels, placed.corners, strict=True)):
        left, top, right, bottom = (min(round(float(at) * SIDE), SIDE - 1) for at in corners)
        colour = COLOURS[number % len(COLOURS)]
        pen.rectangle((left, top, right, bottom), outline=colour)
        if labels:
            write(drawn, (left + 3, top + 2), label, SIDE - left, colour)
    return drawn


def write(image: Image.Image, at: tuple[int, int], text: str, width: int, colour: str = "black") -> None:
    """``text`` as it is, on one line, cut where it would be wider than ``width`` pixels."""
    font = ImageFont.load_default(FONT_SIZE)
    line = " ".join(text.split())[:width]  # no letter is narrower than a pixel
    while line and font.getlength(line) > width:
        line = line[:-1]
    ImageDraw.Draw(image).text(at, line, fill=colour, font=font)
