"""Scenes read into views: those of ETH3D's high-resolution multi-view set (documentation: eth3d.net), and COLMAP's own.

::

    <scene>/images/dslr_images/DSC_0001.JPG                  distorted photographs
    <scene>/dslr_calibration_jpg/{cameras,images,points3D}   their COLMAP model
    <scene>/images/dslr_images_undistorted/DSC_0001.JPG      pinhole photographs (optional, preferred)
    <scene>/dslr_calibration_undistorted/...                 their COLMAP model
    <scene>/ground_truth_depth/dslr_images/DSC_0001.JPG      raw float32 laser depth of the *distorted* image, inf: none
    <scene>/masks_for_images/dslr_images/DSC_0001.png        bit flags on the distorted image (optional)
    <scene>/region_masks/dslr_images/DSC_0001.png            ours: 1 planar, 2 window detail (optional)

COLMAP's layout is in :mod:`ablation.systems.vggt.data.layout`; it has no laser depth, masks or regions.
"""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import pycolmap
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.outside import leads_out
from ablation.systems.opening import Unreadable, opened
from ablation.systems.vggt.data.colmap import read_model
from ablation.systems.vggt.data.layout import CALIBRATIONS, DISTORTED, UNDISTORTED, Layout, is_scene, layout_of, natural

log = logging.getLogger(__name__)

MOST_SHRUNK = 8  # pictures may be this many times smaller than their cameras say
NAMED = 5  # pictures, in messages
POSE_TOLERANCE = 1e-3  # metres and radians between the two calibrations of one image

PUBLISHED = (
    *("courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office", "pipes", "playground", "relief"),
    *("relief_2", "terrace", "terrains"),
)
DOWNLOAD = """\
  ETH3D high-res multi-view training set, https://www.eth3d.net/datasets (7z archives, per scene):
    <scene>_dslr_undistorted.7z   images and calibration        (needed; or <scene>_dslr_jpg.7z)
    <scene>_dslr_jpg.7z           distorted images, calibration (needed to use the laser depth)
    <scene>_dslr_depth.7z         laser depth
  Unpack each in {root}; every archive holds a folder <scene>/.
  Scenes with published ground truth: {published}.
  Licence: CC BY-NC-SA 4.0. Cite: Schoeps et al., A Multi-View Stereo Benchmark with High-Resolution Images and
  Multi-Camera Videos, CVPR 2017.
  Scenes of your own may have COLMAP's layout: images/ and sparse/0/.""".replace("{published}", ", ".join(PUBLISHED))


@dataclass(frozen=True)
class View:
    """One photograph with its camera. Depth, mask and regions live on the grid of ``depth_camera``."""

    name: str
    image: Path
    camera: pycolmap.Camera
    cam_from_world: NDArray[np.float64]  # [3, 4]
    points: NDArray[np.float64]  # [M, 3], world, metres: the COLMAP points this view sees
    depth_camera: pycolmap.Camera | None
    depth: Path | None
    mask: Path | None
    regions: Path | None
    unit: float = 1.0  # by which the laser depth is divided; camera and points are already


def in_units_of(view: View, unit: float) -> View:
    """``view`` with all lengths divided by ``unit``."""
    pose = np.concatenate([view.cam_from_world[:, :3], view.cam_from_world[:, 3:] / unit], axis=1)
    return replace(view, cam_from_world=pose, points=view.points / unit, unit=view.unit * unit)


def missing_scenes(root: Path, scenes: tuple[str, ...]) -> list[str]:
    """The scenes of which ``root`` holds no calibrated images."""
    return [scene for scene in scenes if not is_scene(root / scene)]


def read_scene(root: Path, scene: str) -> list[View]:
    """The views of a scene, in the order of the numbers in their names.

    Raises :class:`UserError` that names what is missing or wrong. COLMAP's layout may lack pictures that the model lists: they
    are left out, and told.
    """
    folder = root / scene
    try:
        layout = layout_of(folder)
    except UserError as error:
        raise UserError(f"{error}\n{DOWNLOAD.format(root=root)}" if scene in PUBLISHED else str(error)) from None
    model = read_model(layout.model)
    laser = {} if layout.nested else _laser_cameras(folder, model, layout.images.name)
    visible = _visible_points(model)
    images = sorted(model.images.values(), key=lambda image: natural(layout.name_of(image.name)))
    _check_names(layout, images)
    views = [_view(folder, layout, image, model, visible, laser) for image in images if _is_there(layout, image)]
    if not views:
        raise UserError(f"{layout.model / 'images.txt'}: lists no image that {layout.images} holds")
    if absent := [layout.name_of(image.name) for image in images if not _is_there(layout, image)]:
        listed = ", ".join(absent[:NAMED]) + " ..." * (len(absent) > NAMED)
        log.warning("%s: %d of %d pictures are not in %s: %s", scene, len(absent), len(images), layout.images.name, listed)
    return views


def _check_names(layout: Layout, images: Sequence[pycolmap.Image]) -> None:
    """Each picture has a name of its own, or one would stand for two."""
    names = [layout.name_of(image.name) for image in images]
    if twice := next((name for name, next_one in pairwise(names) if name == next_one), None):
        raise UserError(f"{layout.model / 'images.txt'}: lists two pictures called {twice}; which is which cannot be told")


def _is_there(layout: Layout, image: pycolmap.Image) -> bool:
    """Whether the picture exists; in ETH3D's layout, whose archives are whole, its absence is an error."""
    path = layout.images / layout.name_of(image.name)
    if not path.is_file() and not layout.nested:
        raise UserError(f"{path}: missing; {layout.listing} lists it")
    return path.is_file()


def _as_stored(camera: pycolmap.Camera, path: Path) -> pycolmap.Camera:
    """``camera``, of the picture's size where that was shrunk by a whole factor, as 3DGS does; else as it is."""
    try:
        with opened(path) as photo:
            width, height = photo.size
    except (Unreadable, OSError):
        return camera  # said where its pixels are read
    factor = round(camera.width / width)
    exact = abs(camera.width / factor - width) <= 1 and abs(camera.height / factor - height) <= 1 if factor else False
    if not (1 < factor <= MOST_SHRUNK and exact):
        return camera
    shrunk = deepcopy(camera)
    shrunk.rescale(width, height)
    return shrunk


def _view(folder, layout: Layout, image, model, visible, laser) -> View:
    name = layout.name_of(image.name)
    path = layout.images / name
    if leads_out(folder, path):
        raise UserError(f"{path}: leads out of {folder}")
    stem = Path(name).stem

    def optional(relative: str) -> Path | None:
        return found if not layout.nested and (found := folder / relative).is_file() else None

    return View(
        name=name,
        image=path,
        camera=_as_stored(model.cameras[image.camera_id], path),
        cam_from_world=image.cam_from_world().matrix(),
        points=visible[image.image_id],
        depth_camera=laser.get(name),
        depth=optional(f"ground_truth_depth/{DISTORTED}/{name}"),
        mask=optional(f"masks_for_images/{DISTORTED}/{stem}.png"),
        regions=optional(f"region_masks/{DISTORTED}/{stem}.png"),
    )


def _laser_cameras(folder: Path, model: pycolmap.Reconstruction, kind: str) -> dict[str, pycolmap.Camera]:
    """Image name -> the camera of its distorted version, on whose grid laser depth and masks live."""
    if kind == DISTORTED:
        source = model
    elif (folder / CALIBRATIONS[DISTORTED]).is_dir():
        source = read_model(folder / CALIBRATIONS[DISTORTED])
        _check_same_poses(folder, model, source)
    elif any((folder / other / DISTORTED).is_dir() for other in ("ground_truth_depth", "masks_for_images")):
        raise UserError(
            f"{folder / CALIBRATIONS[DISTORTED]}: missing; the laser depth and the masks of {folder.name} belong to the"
            " distorted images and cannot be used without their calibration (archive <scene>_dslr_jpg.7z)"
        )
    else:
        return {}
    return {PurePosixPath(image.name).name: source.cameras[image.camera_id] for image in source.images.values()}


def _check_same_poses(folder: Path, model: pycolmap.Reconstruction, other: pycolmap.Reconstruction) -> None:
    """Both calibrations must place an image the same way, or the laser depth would be paired with the wrong view."""
    poses = {PurePosixPath(image.name).name: image.cam_from_world().matrix() for image in other.images.values()}
    for image in model.images.values():
        name = PurePosixPath(image.name).name
        if name not in poses:
            listing = folder / CALIBRATIONS[DISTORTED] / "images.txt"
            raise UserError(f"{listing}: does not list {name}, which {CALIBRATIONS[UNDISTORTED]} has")
        if np.abs(poses[name] - image.cam_from_world().matrix()).max() > POSE_TOLERANCE:
            raise UserError(f"{folder}: the two calibrations disagree about the pose of {name}; they are from different models")


def _visible_points(model: pycolmap.Reconstruction) -> dict[int, NDArray[np.float64]]:
    """Image id -> the points whose track names it; for a model without tracks, every point."""
    everything = np.array([point.xyz for point in model.points3D.values()]).reshape(-1, 3)
    lists: dict[int, list] = {image_id: [] for image_id in model.images}
    for point in model.points3D.values():
        for image_id in {element.image_id for element in point.track.elements}:
            lists[image_id].append(point.xyz)
    if not any(lists.values()):
        return dict.fromkeys(lists, everything)
    return {image_id: np.array(points).reshape(-1, 3) for image_id, points in lists.items()}
