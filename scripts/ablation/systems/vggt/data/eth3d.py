"""The folder layout of ETH3D's high-resolution multi-view scenes (documentation: eth3d.net), read into views.

::

    <scene>/images/dslr_images/DSC_0001.JPG                  distorted photographs
    <scene>/dslr_calibration_jpg/{cameras,images,points3D}   their COLMAP model
    <scene>/images/dslr_images_undistorted/DSC_0001.JPG      pinhole photographs (optional, preferred)
    <scene>/dslr_calibration_undistorted/...                 their COLMAP model
    <scene>/ground_truth_depth/dslr_images/DSC_0001.JPG      raw float32 laser depth of the *distorted* image, inf: none
    <scene>/masks_for_images/dslr_images/DSC_0001.png        bit flags on the distorted image (optional)
    <scene>/region_masks/dslr_images/DSC_0001.png            ours: 1 planar, 2 window detail (optional)
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pycolmap
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.outside import leads_out
from ablation.systems.vggt.data.colmap import read_model

DISTORTED, UNDISTORTED = "dslr_images", "dslr_images_undistorted"
CALIBRATIONS = {DISTORTED: "dslr_calibration_jpg", UNDISTORTED: "dslr_calibration_undistorted"}
POSE_TOLERANCE = 1e-3  # metres and radians between the two calibrations of one image

DOWNLOAD = """\
  ETH3D high-res multi-view training set, https://www.eth3d.net/datasets (7z archives, per scene):
    <scene>_dslr_undistorted.7z   images and calibration        (needed; or <scene>_dslr_jpg.7z)
    <scene>_dslr_jpg.7z           distorted images, calibration (needed to use the laser depth)
    <scene>_dslr_depth.7z         laser depth
  Unpack each in {root}; every archive holds a folder <scene>/.
  Scenes with published ground truth: courtyard, delivery_area, electro, facade, kicker, meadow, office, pipes, playground,
  relief, relief_2, terrace, terrains.
  Licence: CC BY-NC-SA 4.0. Cite: Schoeps et al., A Multi-View Stereo Benchmark with High-Resolution Images and
  Multi-Camera Videos, CVPR 2017."""


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


def missing_scenes(root: Path, scenes: tuple[str, ...]) -> list[str]:
    """The scenes of which ``root`` holds no calibrated images."""
    return [scene for scene in scenes if not any((root / scene / folder).is_dir() for folder in CALIBRATIONS.values())]


def read_scene(root: Path, scene: str) -> list[View]:
    """The views of a scene in the order of their names. Raises :class:`UserError` that names what is missing or wrong."""
    if missing_scenes(root, (scene,)):
        raise UserError(f"{root / scene}: no such ETH3D scene\n{DOWNLOAD.format(root=root)}")
    folder = root / scene
    kind = UNDISTORTED if (folder / CALIBRATIONS[UNDISTORTED]).is_dir() else DISTORTED
    model = read_model(folder / CALIBRATIONS[kind])
    laser = _laser_cameras(folder, model, kind)
    visible = _visible_points(model)
    views = [_view(folder, kind, image, model, visible, laser) for image in model.images.values()]
    if not views:
        raise UserError(f"{folder / CALIBRATIONS[kind] / 'images.txt'}: lists no image")
    return sorted(views, key=lambda view: view.name)


def _view(folder, kind, image, model, visible, laser) -> View:
    name = PurePosixPath(image.name).name
    path = folder / "images" / kind / name
    if not path.is_file():
        raise UserError(f"{path}: missing; {CALIBRATIONS[kind]}/images.txt lists it")
    if leads_out(folder, path):
        raise UserError(f"{path}: leads out of {folder}")
    stem = Path(name).stem

    def optional(relative: str) -> Path | None:
        return found if (found := folder / relative).is_file() else None

    return View(
        name=name,
        image=path,
        camera=model.cameras[image.camera_id],
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
