"""Pictures of a prediction: image, predicted depth, true depth, error."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ERROR_SHARE = 0.25  # the error's colours end at this share of the median depth
HEIGHT_INCHES = 1.9


def save_panel(path: Path, image: NDArray, predicted: NDArray, truth: NDArray) -> None:
    """``image`` [H, W, 3] in [0, 1]; ``predicted`` and ``truth`` [H, W] in metres, truth 0 where unknown."""
    from matplotlib.figure import Figure  # takes a second to import, which what draws nothing does not pay

    known = truth > 0
    low, high = np.percentile(truth[known], [2, 98])
    error = np.where(known, np.abs(predicted - truth), np.nan)
    limit = ERROR_SHARE * float(np.median(truth[known]))
    depth = {"cmap": "turbo", "vmin": low, "vmax": high}
    panels = [
        ("image", image, {}),
        ("predicted depth (m)", predicted, depth),
        ("true depth (m)", np.where(known, truth, np.nan), depth),
        ("absolute error (m)", error, {"cmap": "magma", "vmin": 0, "vmax": limit}),
    ]
    width = HEIGHT_INCHES * image.shape[1] / image.shape[0]
    figure = Figure(figsize=(4 * width + 1.4, HEIGHT_INCHES + 0.3), layout="constrained")
    for axis, (title, values, style) in zip(figure.subplots(1, 4), panels, strict=True):
        shown = axis.imshow(values, interpolation="nearest", **style)
        axis.set_title(title, fontsize=9, parse_math=False)
        axis.set_axis_off()
        if style:
            bar = figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02)
            bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)
