"""A figure of the report: what it is called, what it shows in words, and how it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure as Drawing

from ablation.report.figures.style import styled


@dataclass(frozen=True)
class Figure:
    """One figure. ``name`` is that of its files; ``alt`` tells who cannot see it what it shows, with the main numbers."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Drawing]
    """Makes it anew, in the style of all (:mod:`ablation.report.figures.style`)."""

    @cached_property
    def drawing(self) -> Drawing:
        """Drawn and laid out once for all its files, the page and the PDF."""
        drawing = self.draw()
        with styled():
            drawing.draw_without_rendering()
        drawing.set_layout_engine("none")
        return drawing
