"""Pictures of a prediction: image, predicted depth, true depth, error."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_SHARE = 0.25  # the error's colours end at this share of the median depth
HEIGHT_INCHES, TITLE, GAP, BAR = 1.9, 0.2, 0.12, 0.5  # of a picture, above it, between two, a scale with its numbers


def save_panel(path: Path, image: NDArray, predicted: NDArray, truth: NDArray, unit: str) -> None:
    """``image`` [H, W, 3] in [0, 1]; ``predicted`` and ``truth`` [H, W] in ``unit``, truth 0 where unknown."""
    from matplotlib.figure import Figure  # takes a second to import, which what draws nothing does not pay

    known = truth > 0
    shown_of = truth[known] if known.any() else predicted
    low, high = np.percentile(shown_of, [2, 98])
    error = np.where(known, np.abs(predicted - truth), np.nan)
    limit = ERROR_SHARE * float(np.median(shown_of))
    depth = {"cmap": "turbo", "vmin": low, "vmax": high}
    panels = [
        ("image", image, {}),
        (f"predicted depth ({unit})", predicted, depth),
        (f"true depth ({unit})", np.where(known, truth, np.nan), depth),
        (f"absolute error ({unit})", error, {"cmap": "magma", "vmin": 0, "vmax": limit}),
    ]
    width, height = HEIGHT_INCHES * image.shape[1] / image.shape[0], HEIGHT_INCHES + TITLE + GAP
    figure = Figure(figsize=(4 * (width + GAP) + 3 * BAR, height))
    left = GAP / 2
    for title, values, style in panels:  # placed by hand: a layout that is solved draws everything several times
        axis = figure.add_axes(_share(figure, left, GAP / 2, width, HEIGHT_INCHES))
        shown = axis.imshow(values, interpolation="nearest", aspect="auto", **style)
        axis.set_title(title, fontsize=9, parse_math=False)
        axis.set_axis_off()
        left += width + GAP
        if style:
            bar = figure.add_axes(_share(figure, left - GAP / 2, GAP / 2, BAR / 5, HEIGHT_INCHES))
            figure.colorbar(shown, cax=bar)
            bar.tick_params(labelsize=7)
            left += BAR
    figure.savefig(path, dpi=110)


def _share(figure: "Figure", left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
    """A box in inches, as shares of the figure."""
    across, up = figure.get_size_inches()
    return left / across, bottom / up, width / across, height / up
