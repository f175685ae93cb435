"""The depths of a scene: in which unit they are, and what is left of them within the range that counts."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ablation.errors import UserError
from ablation.systems.vggt.data.scene import PreparedView

log = logging.getLogger(__name__)

NEEDED = 100  # valid pixels that a sequence's first view has more of, or its cameras do not count (losses.MIN_FRAME_PIXELS)
MOST_CUT = 0.5  # share of a scene's depths that may lie outside the range
FURTHEST = 20.0  # medians: the range that a message proposes ends there
NEAREST = 0.05


def account(scene: str, views: Sequence[PreparedView], depth_range: tuple[float, float], unit: str) -> dict[str, Any]:
    """Say what the range leaves of a scene's depths, which are in ``unit``; returns that for the scene's description.

    Nothing where all are left: scenes that were prepared before this was looked at stay the same files.
    Raises :class:`UserError` where nothing is known, or most is cut.
    """
    seen = np.concatenate([view.seen for view in views]) if views else np.zeros(0)
    if not len(seen):
        raise UserError(f"{scene}: no view has a depth: its model has no points that they see, and there is no laser depth")
    low, high = depth_range
    outside, median = float(((seen < low) | (seen > high)).mean()), float(np.median(seen))
    few = sum(_known(view) <= NEEDED for view in views)
    if outside > MOST_CUT:
        raise UserError(_too_few(scene, seen, outside, median, depth_range, unit))
    log.info("%s: median depth %.4g %s, %.1f %% of its depths outside data.depth_range", scene, median, unit, 100 * outside)
    if few:
        log.warning(
            "%s: %d of %d views have a depth at %d pixels or fewer; the cameras of a sequence that begins with one do not count"
            " in the loss",
            *(scene, few, len(views), NEEDED),
        )
    if not outside and not few:
        return {}
    return {"median_depth": float(f"{median:.6g}"), "outside_range": round(outside, 4), "views_with_few_depths": few}


def _known(view: PreparedView) -> int:
    """Pixels with a depth that counts, of points or of the laser."""
    return max(len(view.points), 0 if view.laser is None else int((view.laser > 0).sum()))


def _too_few(scene, seen, outside, median, depth_range, unit) -> str:
    low, high = depth_range
    within = "no depth lies" if outside == 1 else f"{outside:.0%} of its depths do not lie"
    fitting = f"[{NEAREST * median:.3g}, {FURTHEST * median:.3g}]"
    return (
        f"{scene}: {within} within data.depth_range,"
        f" {low:g} to {high:g} {unit}: they are {seen.min():.4g} to {seen.max():.4g}, the median is {median:.4g}\n"
        "  a COLMAP model is in a unit of its own: set data.scale: median, which divides all by it, or scale it to metres;\n"
        f"  or, if its unit is the one that you want, set data.depth_range: {fitting}"
    )
