"""A rollout as one picture: a row for each camera, the time from left to right."""

from pathlib import Path

import numpy as np
from PIL import Image

from ablation.systems.rdt.simulation.camera import CAMERAS
from ablation.systems.rdt.simulation.rollout import Rollout


def write_sheet(path: Path, rollout: Rollout, columns: int = 8, enlarged: int = 2) -> None:
    """Write ``columns`` moments of a rollout whose frames were kept, the first and the last among them, as PNG."""
    moments = np.linspace(0, len(rollout.frames) - 1, columns).round().astype(int)
    rows = [np.hstack([rollout.frames[moment][view] for moment in moments]) for view in CAMERAS]
    image = Image.fromarray(np.vstack(rows))
    image.resize((image.width * enlarged, image.height * enlarged), Image.Resampling.NEAREST).save(path, format="PNG")
