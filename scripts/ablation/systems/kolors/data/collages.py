"""Real photographs of single objects pasted onto backgrounds, so that every box is known: the demo's images.

The folder of photographs holds ``objects/<label>.jpg`` and ``backgrounds/<where>.jpg``, such as ``on-wood.jpg``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from ablation.errors import UserError
from ablation.systems.kolors.data.boxes import SCALE, Box
from ablation.systems.kolors.data.layouts import Layout, write_layouts
from ablation.systems.opening import Unreadable, read_rgb

OBJECTS = (1, 3)  # fewest and most in an image
EXTENT = (0.28, 0.42)  # of an object: the root of its area, as a share of the image's side
BRIGHTNESS = (0.85, 1.15)  # factor
BACKGROUND = (0.6, 1.0)  # share of the background's photograph that is seen
GAP = 0.03  # between boxes, as a share of the image's side
OPENINGS = ("a photo of", "a picture of")

Pixels = tuple[int, int, int, int]


class Photographs(NamedTuple):
    """What collages are made of, each by its name."""

    objects: dict[str, Image.Image]
    backgrounds: dict[str, Image.Image]


class Collage(NamedTuple):
    """An image and what is on it."""

    image: Image.Image
    caption: str
    boxes: list[tuple[str, Pixels]]
    """Label, and left, top, right, bottom in pixels."""


def read_photographs(folder: Path) -> Photographs:
    """All photographs below ``folder``. Raises UserError where there are none."""
    found = []
    for kind in Photographs._fields:
        paths = sorted((folder / kind).glob("*.jpg"))
        if not paths:
            raise UserError(f"{folder / kind}: no photographs (*.jpg); data.collages.photographs names a folder with some")
        found.append({path.stem.replace("-", " "): _photograph(path) for path in paths})
    return Photographs(*found)


def _photograph(path: Path) -> Image.Image:
    try:
        return read_rgb(path, upright=True, background="white")
    except (Unreadable, OSError) as error:
        raise UserError(f"{path}: cannot be read as a photograph ({error})") from None


def write_collages(photographs: Path, out: Path, count: int, seed: int, size: int) -> None:
    """``count`` images of ``size`` pixels a side, and their layouts, into ``out``. Image i is a function of (seed, i) alone."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    sources = read_photographs(photographs)
    layouts = []
    for number in range(count):
        made = collage(sources, np.random.default_rng([seed, number]), size)
        name = f"images/{number:06d}.png"
        made.image.save(out / name)
        layouts.append(layout_of(made, name))
    write_layouts(layouts, None, out)


def layout_of(made: Collage, name: str) -> Layout:
    """What is on a collage that is saved as ``name``."""
    boxes = tuple(Box(label, tuple(round(at * SCALE / made.image.width) for at in box)) for label, box in made.boxes)
    return Layout(name, *made.image.size, made.caption, boxes)


def collage(sources: Photographs, rng: np.random.Generator, side: int) -> Collage:
    """Different objects at places of their own; the caption names them in random order and tells no places."""
    labels = list(rng.choice(sorted(sources.objects), rng.integers(OBJECTS[0], OBJECTS[1], endpoint=True), replace=False))
    where = str(rng.choice(sorted(sources.backgrounds)))
    image = _background(sources.backgrounds[where], rng, side)
    boxes = _places([sources.objects[label].size for label in labels], rng, side)
    for label, box in zip(labels, boxes, strict=True):
        size = (box[2] - box[0], box[3] - box[1])
        image.paste(_changed(sources.objects[label], rng).resize(size, Image.Resampling.LANCZOS), box[:2])
    return Collage(image, caption(rng, labels, where), list(zip(map(str, labels), boxes, strict=True)))


def caption(rng: np.random.Generator, labels: Sequence[str], where: str) -> str:
    """Such as ``a photo of a cat and a cup on wood``."""
    things = [f"{'an' if label[0] in 'aeiou' else 'a'} {label}" for label in rng.permutation(labels)]
    return f"{rng.choice(OPENINGS)} {' and '.join(things)} {where}"


def _background(photograph: Image.Image, rng: np.random.Generator, side: int) -> Image.Image:
    """A random square part of ``photograph``."""
    seen = round(min(photograph.size) * rng.uniform(*BACKGROUND))
    left, top = (int(rng.integers(whole - seen, endpoint=True)) for whole in photograph.size)
    part = _changed(photograph, rng).crop((left, top, left + seen, top + seen))
    return part.resize((side, side), Image.Resampling.LANCZOS)


def _changed(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirrored or not, a little lighter or darker."""
    mirrored = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else photograph
    return ImageEnhance.Brightness(mirrored).enhance(rng.uniform(*BRIGHTNESS))


def _places(sizes: Sequence[tuple[int, int]], rng: np.random.Generator, side: int) -> list[Pixels]:
    """A box for each object, of its shape; drawn again until none is nearer to another than ``GAP``."""
    while True:
        boxes = [_place(size, rng, side) for size in sizes]
        if not any(_near(one, two, GAP * side) for number, one in enumerate(boxes) for two in boxes[:number]):
            return boxes


def _place(size: tuple[int, int], rng: np.random.Generator, side: int) -> Pixels:
    extent = side * rng.uniform(*EXTENT)
    width, height = (round(extent * length / np.sqrt(size[0] * size[1])) for length in size)
    left, top = int(rng.integers(side - width, endpoint=True)), int(rng.integers(side - height, endpoint=True))
    return left, top, left + width, top + height


def _near(one: Pixels, two: Pixels, gap: float) -> bool:
    return all(max(one[axis], two[axis]) - min(one[axis + 2], two[axis + 2]) < gap for axis in (0, 1))
