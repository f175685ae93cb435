"""One look for all figures: readable in print, in grey and by the colour-blind. No state of pyplot is touched."""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMN, PAGE = 3.4, 7.0  # inches: widths of one and of two columns of a paper
FONT = 7.5  # points, at these widths
FEW = 12  # bars that have room for names of several lines
OTHER_NAME = "other strategies"

_COLOURS = [sns.color_palette("colorblind")[i] for i in (0, 3, 2, 1, 4, 9, 5)]
_MARKERS = "osD^vP*"
_LINES: list[Any] = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (7, 3)), (0, (3, 1, 1, 1))]
HATCHES = ["", "/////", ".....", "xxxxx", "\\\\\\\\\\", "-----", "+++++", "ooo", "|||||", "***"]


@dataclass(frozen=True)
class Look:
    """How one strategy is drawn; any two differ in marker, line and hatch, not in colour alone."""

    colour: Any
    marker: str
    line: Any
    hatch: str


LOOKS = [Look(*look) for look in zip(_COLOURS, _MARKERS, _LINES, HATCHES[: len(_COLOURS)], strict=True)]
OTHER = Look("0.55", "X", (0, (1, 3)), "***")


@contextmanager
def styled() -> Iterator[None]:
    """Fonts, grid and colours, for making a figure and for writing it; also a decorator."""
    settings = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper"),
        **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), FONT),
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize", "legend.title_fontsize"), FONT - 0.7),
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
        "text.parse_math": False,  # a name may hold anything
        "text.usetex": False,
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "savefig.dpi": 300,
        "figure.dpi": 100,
        "savefig.bbox": None,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,  # a tick says its own number
        "axes.linewidth": 0.7,
        "grid.linewidth": 0.4,
        "grid.color": "0.88",
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "lines.linewidth": 1.2,
        "lines.markersize": 4.5,
        "hatch.linewidth": 0.5,
        "legend.frameon": False,
        "legend.handlelength": 2.4,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        yield


def drawing(width: float, height: float) -> Figure:
    """An empty figure of so many inches, laid out by its constraints."""
    return Figure(figsize=(width, height), layout="constrained")


def plain(text: object, most: int = 48) -> str:
    """A name as one short printable line; what is too long loses its middle, for names often differ at their ends."""
    clean = printable(text) or "–"
    return clean if len(clean) <= most else f"{clean[: most // 2 - 1]}…{clean[-(most - most // 2) :]}"


def printable(text: object) -> str:
    """A text as one line without what no XML may hold."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def folded(text: object, width: int = 30, lines: int = 2) -> str:
    """A name on at most so many lines, for the ticks of an axis."""
    found = textwrap.wrap(plain(text, width * lines), width)
    return "\n".join(found if len(found) <= lines else textwrap.wrap(plain(text, (width - 6) * lines), width)[:lines])


def window(means: Sequence[float], half_widths: Sequence[float | None], least: float) -> tuple[float, float, float]:
    """Lower and upper limit and span of an axis: every mean, and of intervals what is not much longer than those lie apart.

    ``least``: a span below which differences are not to be magnified.
    """
    centre, half = np.asarray(means, float), np.nan_to_num(np.array([h or 0 for h in half_widths], float), posinf=0)
    span = max(np.ptp(centre), least) or 0.1 * abs(centre[0]) or 1.0
    low = min(centre.min(), max((centre - half).min(), centre.min() - 1.5 * span)) - 0.12 * span
    high = max(centre.max(), min((centre + half).max(), centre.max() + 1.5 * span)) + 0.12 * span
    if high - low < span:
        low, high = (low + high - span) / 2, (low + high + span) / 2
    return low, high, span


def row_name(text: str, rows: int) -> str:
    """The name of a bar: on several lines where there are few."""
    return folded(text, 34, 3) if rows <= FEW else plain(text, 46)


def row_height(texts: Sequence[str]) -> float:
    """Inches that a bar takes with its name."""
    return 0.18 if len(texts) > FEW else 0.1 + 0.115 * max(row_name(text, len(texts)).count("\n") + 1 for text in texts)


def above(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    """The legend above the figure, never over data, in as many columns as its width takes."""
    if not handles:
        return
    room = figure.get_size_inches()[0] * 72 / FONT  # in ems; a letter takes about half of one
    widths = [0.55 * len(label) + 4.4 for label in labels]
    columns = len(labels) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, borderaxespad=0.1, columnspacing=1.2)


def plain_numbers(axes: Axes, which: str) -> None:
    """Ticks as plain numbers; those of a logarithmic axis are formulas otherwise."""
    for axis in [axes.xaxis, axes.yaxis] if which == "both" else [getattr(axes, f"{which}axis")]:
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))
        axis.set_minor_formatter("")


def to_the_limit(axes: Axes, limit: float, largest: float, text: str) -> None:
    """A card's memory as a labelled line on the x axis; where all lie far below, as words at its right end."""
    near = limit <= 3 * largest
    if near:
        axes.axvline(limit, color="0.15", lw=1.2, ls=(0, (4, 2)), zorder=1)
        axes.set_xlim(right=max(limit, largest) * 1.04)
    where = {"xycoords": ("data" if near else "axes fraction", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(
        text if near else f"{text} →", (limit if near else 1, 1), xytext=(2, 3), ha="right", va="bottom",
        fontsize=FONT - 1, style="italic", **where,
    )  # fmt: skip
