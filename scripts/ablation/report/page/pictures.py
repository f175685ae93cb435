"""Pictures as part of the page: figures as SVG, panels as WebP small enough that the page can be sent."""

import base64
import io
import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ablation.report.figure import Figure
from ablation.report.figures.save import svg_element
from ablation.systems.opening import read_rgb

BUDGET = 3 << 20  # bytes of all panels together
PIXELS_PER_INCH = 150  # of figures; a browser's inch has 96
EDGES = (720, 480, 320, 200)  # pixels; the first whose pictures fit


def as_image(figure: Figure) -> tuple[str, int]:
    """A figure as an image of its own, and its width in pixels: print's sizes are small for a screen.

    Apart from the page no name in one SVG means anything in another, and no style leaks.
    """
    svg = svg_element(figure)
    points = float(re.search(r'viewBox="0 0 ([0-9.]+) ', svg).group(1))
    return _data("image/svg+xml", svg.encode()), round(points / 72 * PIXELS_PER_INCH)


def embedded(paths: Iterable[Path]) -> dict[Path, str]:
    """The pictures as data, all at the largest size at which they fit the page."""
    chosen = list(dict.fromkeys(paths))
    for edge in EDGES:
        found = {path: _data("image/webp", _shrunk(path, edge)) for path in chosen}
        if sum(map(len, found.values())) <= BUDGET:
            break
    return found


def _shrunk(path: Path, edge: int) -> bytes:
    """The picture as WebP, no longer than ``edge`` on either side."""
    small = read_rgb(path, upright=False, background="white")
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=82, method=4)
    return out.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
