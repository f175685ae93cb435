"""Where the pictures and the COLMAP model of a scene lie: ETH3D's layout, or that of COLMAP itself, nerfstudio and 3DGS.

::

    <scene>/images/dslr_images_undistorted/, dslr_calibration_undistorted/    ETH3D, pinhole photographs (preferred)
    <scene>/images/dslr_images/, dslr_calibration_jpg/                        ETH3D, distorted photographs
    <scene>/images/ or images_2/, images_4/, images_8/; sparse/0/ or sparse/  COLMAP; names may have folders in them
"""

import logging
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ablation.errors import UserError

log = logging.getLogger(__name__)

DISTORTED, UNDISTORTED = "dslr_images", "dslr_images_undistorted"
CALIBRATIONS = {DISTORTED: "dslr_calibration_jpg", UNDISTORTED: "dslr_calibration_undistorted"}
SPARSE = ("sparse/0", "sparse")
PICTURES = ("images", "images_2", "images_4", "images_8")  # the largest first; 3DGS shrinks photographs into the others
LOOKED_FOR = (*reversed(CALIBRATIONS.values()), *SPARSE)


class Layout(NamedTuple):
    """``images``: the folder of the pictures; ``model``: that of the COLMAP model. ``nested``: names in it are paths below."""

    images: Path
    model: Path
    nested: bool

    def name_of(self, listed: str) -> str:
        """What the picture is called that the model lists so."""
        return PurePosixPath(listed).as_posix() if self.nested else PurePosixPath(listed).name

    @property
    def listing(self) -> str:
        """The file that lists the pictures, for messages."""
        return f"{self.model.name}/images.txt"


def layout_of(folder: Path) -> Layout:
    """The layout of the scene in ``folder``. UserError where there is none, which lists what was looked for."""
    for kind in (UNDISTORTED, DISTORTED):
        if (folder / CALIBRATIONS[kind]).is_dir():
            return Layout(folder / "images" / kind, folder / CALIBRATIONS[kind], nested=False)
    model = next((folder / name for name in SPARSE if _holds_model(folder / name)), None)
    if model is None:
        raise UserError(f"{folder}: no such scene; none of {', '.join(LOOKED_FOR)} in it holds a COLMAP model")
    images = next((folder / name for name in PICTURES if (folder / name).is_dir()), None)
    if images is None:
        raise UserError(f"{folder}: has a COLMAP model, but no pictures: none of {', '.join(PICTURES)} is there")
    if others := sorted(path.name for path in (folder / "sparse").glob("[1-9]*") if path.is_dir()):
        log.warning("%s: sparse/ holds %d models; 0 is read, not %s", folder.name, len(others) + 1, ", ".join(others))
    return Layout(images, model, nested=True)


def is_scene(folder: Path) -> bool:
    """Whether ``folder`` holds calibrated images."""
    return any((folder / name).is_dir() for name in CALIBRATIONS.values()) or any(
        _holds_model(folder / name) for name in SPARSE
    )


def natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """A key by which pictures are in the order of the numbers in their names: 2.jpg before 10.jpg."""
    words = re.split(r"(\d+)", name)
    return [(0, int(word)) if word.isdecimal() else (1, word) for word in words if word], name


def _holds_model(folder: Path) -> bool:
    return any((folder / f"images{suffix}").is_file() for suffix in (".bin", ".txt"))
