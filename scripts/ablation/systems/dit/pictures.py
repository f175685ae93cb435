"""Samples as a grid."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

LEAST, GAP, LINE = 64, 2, 14  # pixels: side of a sample in the grid, between two of them, height of a line of words
LETTERS = 24  # of a row's name


def save_grid(path: Path, rows: Sequence[tuple[str, Tensor]]) -> None:
    """A row for each name, with its images [N, 3, S, S], uint8; small ones are enlarged without smoothing."""
    side = rows[0][1].shape[-1]
    side *= max(1, -(-LEAST // side))
    names = [name if len(name) <= LETTERS else f"{name[: LETTERS - 3]}..." for name, _ in rows]
    left = GAP + 7 * max(map(len, names))
    columns = max(len(images) for _, images in rows)
    grid = Image.new("RGB", (left + columns * (side + GAP), len(rows) * (side + GAP)), "white")
    for row, (name, images) in enumerate(zip(names, (images for _, images in rows), strict=True)):
        top = row * (side + GAP)
        ImageDraw.Draw(grid).text((GAP, top + (side - LINE) // 2), name, fill="black")
        for column, image in enumerate(images):
            grid.paste(_picture(image, side), (left + column * (side + GAP), top))
    grid.save(path)


def _picture(image: Tensor, side: int) -> Image.Image:
    shown = Image.fromarray(image.permute(1, 2, 0).to(torch.uint8).numpy())
    return shown if shown.width == side else shown.resize((side, side), Image.Resampling.NEAREST)
