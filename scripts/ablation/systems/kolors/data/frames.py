"""Whether boxes are in another unit than declared: pixels taken for thousandths, above all, pass every check of a single box.

Pictures of a data set are compared with their mirror images. In thousandths, a box near the right border of a picture is as
likely as one near the left; in pixels of pictures 640 wide, none lies beyond 640, while boxes left of 360 abound. Nothing else
is assumed: neither where objects are, nor how large, nor how many. From top to bottom pictures are not alike, so of heights
only exact ends count. Pictures whose sides are nearly 1000 say nothing; the others are taken for independent, which frames of
a video are not.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ablation.errors import UserError
from ablation.systems.kolors.data.conventions import SCALE, Convention, Size

Corners = tuple[float, float, float, float]

ONE_SIDED = 20
"""Pictures that speak for the other frame and would be mirror images of such as do not: by chance once in 2^20 data sets."""
SLIPS = 0.02
"""Share of the pictures that may have a box that goes beyond the other frame all the same."""
STRIP = 0.02
"""Least share of a side by which frames must differ: models and tools end boxes at 998 or 1001, too."""
SLACK = 0.005
"""Share of a side by which a box may miss a border: rounding, inclusive ends."""
BEYOND, BEYOND_SHARE = 5, 0.1
"""Pictures, and share of them, with a box outside of the declared frame that lies within the other."""
SWAPPED, SWAPPED_SHARE = 20, 0.25
"""Boxes, and share of them, whose third and fourth number are less than the first two: sides, not corners."""


class Tally(NamedTuple):
    """What the pictures of a data set say about their declared frame and another one; a count of pictures each."""

    pictures: int = 0
    one_sided: int = 0
    """With boxes in the strip at the left that is as broad as the frames' difference, and none in that at the right."""
    acquit: int = 0
    """With a box beyond the other frame, though within the declared one."""
    beyond: int = 0
    """With a box beyond the declared frame, and all within the other."""
    ending: int = 0
    """With a box that ends exactly at the right or lower border of the other frame."""
    starting: int = 0
    """With a box that starts exactly as far from the left or the top: round numbers are no borders."""

    def contradicts(self) -> bool:
        """Whether the boxes are in the other frame, rather."""
        if self.acquit > SLIPS * (self.one_sided + self.beyond + self.acquit):
            return False
        if max(self.one_sided, self.ending - self.starting) >= ONE_SIDED:
            return True
        return self.beyond >= max(BEYOND, BEYOND_SHARE * self.pictures)


class Evidence:
    """Collects the boxes of a data set, a picture at a time, and refuses them together."""

    def __init__(self, convention: Convention):
        self.convention, self.tally, self.boxes, self.swapped = convention, Tally(), 0, 0

    def add(self, size: Size, boxes: Iterable[Corners]) -> None:
        """The boxes of one picture of ``size`` pixels as they were written, none checked."""
        boxes = list(boxes)
        self.swapped += sum(right < left or bottom < top for left, top, right, bottom in boxes)
        self.boxes += len(boxes)
        proper = [box for box in boxes if 0 <= box[0] < box[2] and 0 <= box[1] < box[3]]
        if proper and self.convention.unit != "shares":
            seen = _look(proper, self.convention.frame(size), self._other(size))
            self.tally = Tally(*(old + new for old, new in zip(self.tally, seen, strict=True)))

    def refuse(self, about: str) -> None:
        """UserError, with the numbers and what to declare, where the boxes are written otherwise than the convention says."""
        if self.convention.believed:
            return
        if self.swapped >= max(SWAPPED, SWAPPED_SHARE * self.boxes):
            raise UserError(
                f"{about}: of {self.swapped} of {self.boxes} boxes the third or fourth number is less than the first or second;"
                f" are these x, y, width, height?\n  {self.remedy()}"
            )
        if self.tally.contradicts():
            raise UserError(f"{about}: {self._numbers()}\n  {self.remedy()}")

    def _other(self, size: Size) -> Size:
        return (SCALE, SCALE) if self.convention.unit == "pixels" else self.convention.pixels(size)

    def _numbers(self) -> str:
        declared, t = self.convention.unit, self.tally
        other, limit = ("thousandths", "1000") if declared == "pixels" else ("pixels", "the picture's own width and height")
        whose = " (as the model sees it)" if self.convention.answer else ""
        return (
            f"boxes are declared as {declared} and look like {other}: in {t.pictures - t.acquit} of {t.pictures} pictures no"
            f" box goes beyond {limit}{whose} where {declared} could; {t.ending} have one that ends exactly there,"
            f" {t.one_sided} have boxes at the left and none at the right, {t.beyond} have one outside of all {declared}"
        )

    def remedy(self) -> str:
        """What to declare."""
        if self.convention.answer:
            return (
                "declare what the model answers in: data.labelled.convention: qwen2-vl (bbox, thousandths), qwen2.5-vl"
                " (bbox_2d, pixels) or qwen3-vl (bbox_2d, thousandths)"
            )
        return (
            "declare what the file holds: data.layouts_convention: pixels (left, top, right, bottom), pixels_xywh (left, top,"
            " width, height, as COCO), shares (0 to 1), or thousandths, which is believed, should they be just that"
        )


def _look(boxes: list[Corners], declared: Size, other: Size) -> Tally:
    """What a picture says. Where the other frame is smaller, boxes beyond it speak for the declared one; else the reverse."""
    smaller = [its < mine * (1 - STRIP) for mine, its in zip(declared, other, strict=True)]
    strips = [(1 - SLACK) * mine - its for mine, its in zip(declared, other, strict=True)]
    ends = [max(box[2] for box in boxes), max(box[3] for box in boxes)]
    acquits = any(small and end > mine - strip for small, end, mine, strip in zip(smaller, ends, declared, strips, strict=True))
    one_sided = smaller[0] and not acquits and min(box[0] for box in boxes) < strips[0]
    inside = all(end <= its * (1 + STRIP) for end, its in zip(ends, other, strict=True))
    beyond = inside and not acquits and any(end > mine * (1 + STRIP) for end, mine in zip(ends, declared, strict=True))
    axes = [axis for axis in (0, 1) if smaller[axis]]
    ending = any(abs(box[2 + axis] - other[axis]) < 1 for box in boxes for axis in axes)
    starting = any(abs(declared[axis] - box[axis] - other[axis]) < 1 for box in boxes for axis in axes)
    return Tally(1, one_sided, acquits, beyond, ending, starting)
