"""How somebody writes a box down: under which key, in which unit, as two corners or as a corner and two sides.

A convention is declared in the study and never guessed from the numbers; :mod:`frames` looks whether they contradict it.
"""

from typing import Literal, NamedTuple

Size = tuple[int, int]
"""Width and height."""

SCALE = 1000
"""Boxes are kept as whole thousandths: from 0 to this, whatever the picture's size."""
SEEN = {"shortest_edge": 4 * 28 * 28, "longest_edge": 1280 * 28 * 28}
"""Pixels of a picture as a model sees it, about a thousand tokens; the released limit is ten times this."""


class Convention(NamedTuple):
    """What the numbers of a box mean."""

    key: Literal["bbox", "bbox_2d"] = "bbox"
    unit: Literal["thousandths", "pixels", "shares"] = "thousandths"
    sides: bool = False
    """Left, top, width, height, as in COCO; else left, top, right, bottom."""
    answer: bool = False
    """From a model, whose pixels are those of the picture as it saw it."""
    square: int = 28
    """Sides of a picture as a model sees it are multiples of so many pixels: two patches of 14, or of 16."""
    believed: bool = False
    """Somebody says so who knows the boxes: numbers that look otherwise are no objection."""

    def frame(self, size: Size) -> Size:
        """What the right and the bottom border of a picture of ``size`` pixels, upright, have as coordinates."""
        return {"thousandths": (SCALE, SCALE), "pixels": self.pixels(size), "shares": (1, 1)}[self.unit]

    def pixels(self, size: Size) -> Size:
        """The size in pixels that a box in pixels would refer to."""
        return seen_size(size, self.square) if self.answer else size


GIVEN = {
    None: Convention(),
    "thousandths": Convention(believed=True),
    "pixels": Convention(unit="pixels"),
    "pixels_xywh": Convention(unit="pixels", sides=True),
    "shares": Convention(unit="shares"),
}
"""Of a file of layouts, by ``data.layouts_convention``."""

FAMILIES = {
    "qwen2-vl": Convention(answer=True),
    "qwen2.5-vl": Convention("bbox_2d", "pixels", answer=True),
    "qwen3-vl": Convention("bbox_2d", answer=True, square=32),
}
"""Of a model's answers, by ``data.labelled.convention``.

Qwen2-VL: normalised to [0, 1000) (arXiv:2409.12191, 2.2). Qwen2.5-VL: pixels of the picture as it was resized for the model
(arXiv:2502.13923, 2.1; QwenLM/Qwen3-VL, issues 931 and 1367). Qwen3-VL: 0 to 1000 again (its cookbooks, spatial_understanding).
"""


def seen_size(size: Size, square: int) -> Size:
    """Width and height of a picture as the labeller's processor makes it for the model."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize  # slow to import

    height, width = smart_resize(size[1], size[0], square, SEEN["shortest_edge"], SEEN["longest_edge"])
    return width, height
