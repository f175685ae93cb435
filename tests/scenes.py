"""Small scenes in the layout of ETH3D with exactly known geometry: two cameras, one of them a fisheye."""

import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

from ablation.systems.vggt.data.layout import CALIBRATIONS, DISTORTED
from ablation.systems.vggt.data.render import Film, Texture, World
from ablation.systems.vggt.data.worlds import walk_past

SIZES = {1: (96, 64), 2: (90, 66)}  # width, height: ETH3D has several, slightly different cameras a scene


def cameras() -> dict[int, pycolmap.Camera]:
    """A fisheye camera and a pinhole camera with an off-centre principal point."""
    fisheye = [70.0, 71.0, 47.0, 33.0, -0.05, 0.02, 0.001, -0.001, 0.0, 0.0, 0.0, 0.0]
    pinhole = [68.0, 69.0, 46.5, 31.0]
    return {
        1: pycolmap.Camera(model="THIN_PRISM_FISHEYE", width=96, height=64, params=fisheye, camera_id=1),
        2: pycolmap.Camera(model="PINHOLE", width=90, height=66, params=pinhole, camera_id=2),
    }


def room(seed: int) -> World:
    """A wall, a floor and a box with noise on them."""
    rng = np.random.default_rng(seed)

    def texture() -> Texture:
        return Texture(rng.integers(0, 255, (64, 64, 3), np.uint8))

    world = World()
    world.add([-8, -6, 2], [16, 0, 0], [0, 12, 0], texture())
    world.add([-8, 1.5, 2], [16, 0, 0], [0, 0, -8], texture())
    world.add_box(np.array([0.5, 0.9, 0.0]), (1.2, 1.2, 1.2), 0.4, [texture() for _ in range(3)])
    return world


def write_scene(root: Path, name: str, seed: int, views: int = 6, binary: bool = False) -> list[np.ndarray]:
    """Write a scene with images, raw laser depth and a COLMAP model; returns the poses [3, 4]."""
    folder, world, known = root / name, room(seed), cameras()
    for part in ("images", "ground_truth_depth"):
        (folder / part / DISTORTED).mkdir(parents=True)
    poses = walk_past(np.random.default_rng(seed), views, distance=5.0, span=2.0)
    films = {i: Film(camera.cam_from_img, camera.height, camera.width, camera.params[0]) for i, camera in known.items()}
    model = pycolmap.Reconstruction()
    for camera in known.values():
        model.add_camera_with_trivial_rig(camera)
    depths = {}
    for number, pose in enumerate(poses, start=1):
        camera_id = 1 if number % 3 else 2
        image, depth = films[camera_id].expose(world, pose)
        depths[number] = depth
        file = f"DSC_{number:04d}.JPG"
        Image.fromarray(image).save(folder / "images" / DISTORTED / file, format="JPEG", quality=98, subsampling=0)
        depth.astype("<f4").tofile(folder / "ground_truth_depth" / DISTORTED / file)
        placed = pycolmap.Image(
            name=f"{DISTORTED}/{file}", keypoints=_keypoints(SIZES[camera_id]), camera_id=camera_id, image_id=number
        )
        model.add_image_with_trivial_frame(placed, pycolmap.Rigid3d(pose))
    _add_points(model, known, depths, poses)
    out = folder / CALIBRATIONS[DISTORTED]
    out.mkdir()
    model.write_binary(str(out)) if binary else model.write_text(str(out))
    return poses


def _keypoints(size: tuple[int, int]) -> np.ndarray:
    """Pixel centres on a coarse grid, in COLMAP coordinates."""
    y, x = np.mgrid[4 : size[1] : 8, 4 : size[0] : 8] + 0.5
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def _add_points(model, known, depths, poses) -> None:
    """A point for every keypoint that sees a surface: exact, from the depth of its own pixel."""
    for number, pose in enumerate(poses, start=1):
        image = model.images[number]
        camera = known[image.camera_id]
        for index, point in enumerate(image.points2D):
            x, y = point.xy
            depth = depths[number][int(y), int(x)]
            if np.isfinite(depth):
                local = np.append(camera.cam_from_img(np.array([[x, y]]))[0], 1) * depth
                world = pose[:, :3].T @ (local - pose[:, 3])
                track = pycolmap.Track()
                track.add_element(number, index)
                model.add_point3D(world, track, np.array([128, 128, 128], np.uint8))
