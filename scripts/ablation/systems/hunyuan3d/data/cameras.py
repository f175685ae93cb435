"""The cameras of a shape's pictures: ``render_cond/transforms.json``."""

import math
from collections.abc import Sequence
from pathlib import Path

from ablation.errors import UserError
from ablation.outside import MIB, read_json
from ablation.systems.hunyuan3d.data.layout import MISFIT
from ablation.systems.hunyuan3d.data.render import View

NUMBERS = ("azimuth", "elevation", "camera_angle_x")  # of a frame, in radians


def read_cameras(path: Path, pictures: Sequence[Path]) -> dict[str, View]:
    """Name of a picture -> its camera, for all ``pictures``. Raises UserError naming the file."""
    try:
        frames = read_json(path, MIB)["frames"]
        cameras = {frame["file_path"]: View(*(float(frame[name]) for name in NUMBERS)) for frame in frames}
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: cannot be read as cameras ({type(error).__name__}: {error}); {MISFIT}") from None
    absent = [picture.name for picture in pictures if picture.name not in cameras]
    if absent:
        raise UserError(f"{path}: has no camera for {', '.join(absent[:3])}; {MISFIT}")
    if not all(math.isfinite(number) for camera in cameras.values() for number in camera):
        raise UserError(f"{path}: an angle is not finite; make the shape's pictures again")
    return cameras
