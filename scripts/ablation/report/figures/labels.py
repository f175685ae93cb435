"""Names beside points: each where it covers neither another name nor a point, or not at all."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from ablation.report.figures.style import FONT

NEAR = [(5, 0), (-5, 0), (0, 6), (0, -6), (4, 5), (-4, 5), (4, -5), (-4, -5)]  # points
REACH = (1, 2, 3.5, 5)  # times so far; from the third on a thin line leads to the point
LED = 2


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    everywhere: Sequence[tuple[float, float, float]],
    steps: Sequence[tuple[float, float]],
) -> None:
    """Write ``texts`` beside ``points``, the first ones first, where they cover nothing that is drawn.

    ``everywhere``: all points there are, with half lengths of their vertical intervals.
    ``steps``: corners of a line that goes to the right and then up or down.
    """
    figure = axes.get_figure()
    figure.draw_without_rendering()
    point_size = figure.dpi / 72
    size, to_pixels = 3.2 * point_size, axes.transData.transform
    taken = [Bbox.from_extents(x - size, y - size, x + size, y + size) for x, y in (to_pixels(one[:2]) for one in everywhere)]
    for x, y, bar in everywhere:
        (left, low), (_, high) = to_pixels([(x, y - bar), (x, y + bar)])
        taken.append(Bbox.from_extents(left - 1, low, left + 1, high))
    for (x, y), (right, end) in pairwise(map(to_pixels, steps)):
        taken.append(Bbox.from_extents(x, y - 1, right, y + 1))
        taken.append(Bbox.from_extents(right - 1, min(y, end), right + 1, max(y, end)))
    taken += [text.get_window_extent() for text in axes.texts]
    for point, text in zip(points, texts, strict=True):
        found = _place(axes, to_pixels(point), text, taken, point_size) if text else None
        if found:
            dx, dy, led, box = found
            taken.append(box)
            _write(axes, point, text, dx, dy, led)


def _place(
    axes: Axes, at: tuple[float, float], text: str, taken: Sequence[Bbox], unit: float
) -> tuple[float, float, bool, Bbox] | None:
    """The first place that is free, in points from the point, whether a line leads there, and what it takes."""
    frame = axes.get_window_extent()
    trial = axes.text(0, 0, text, fontsize=FONT - 1.2, linespacing=1.05)
    width, height = trial.get_window_extent().size
    trial.remove()
    for times in REACH:
        for dx, dy in ((x * times, y * times) for x, y in NEAR):
            left = at[0] + dx * unit - (0 if dx > 0 else width if dx < 0 else width / 2)
            low = at[1] + dy * unit - (0 if dy > 0 else height if dy < 0 else height / 2)
            box = Bbox.from_bounds(left, low, width, height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                return dx, dy, times > LED, box
    return None


def _write(axes: Axes, point: tuple[float, float], text: str, dx: float, dy: float, led: bool) -> None:
    label = axes.annotate(
        text, point, xytext=(dx, dy), textcoords="offset points", fontsize=FONT - 1.2, color="0.15", zorder=4, linespacing=1.05,
        ha="left" if dx > 0 else "right" if dx < 0 else "center", va="bottom" if dy > 0 else "top" if dy < 0 else "center",
        arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": 2} if led else None,
    )  # fmt: skip
    label.set_in_layout(False)
