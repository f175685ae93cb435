"""One view at the size it is trained at: image, intrinsics, sparse and laser depth, all on one pinhole grid.

Intrinsics use integer pixel centres (the first pixel's centre is (0, 0)), as VGGT does; COLMAP puts it at (0.5, 0.5). So a
principal point scales as ``(c + 0.5) * s - 0.5``.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycolmap
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch.nn import functional as F

from ablation.errors import UserError
from ablation.systems.opening import Kind, Unreadable, as_rgb, opened
from ablation.systems.vggt.data.eth3d import View
from ablation.systems.vggt.data.regions import DETAIL, PLANAR
from ablation.systems.vggt.data.scene import PreparedView

EVALUATION_AND_OBSERVATION = 2  # mask bit: the scan's geometry is wrong here. Bit 1 concerns colour only.
MASK_BITS = 3
EVERYTHING = (1e-9, np.inf)  # depths in front of the camera


class Pinhole(NamedTuple):
    """Focal lengths and principal point in pixels, integer pixel centres, and the size of the image."""

    fx: float
    fy: float
    cx: float
    cy: float
    height: int
    width: int

    def matrix(self) -> NDArray[np.float32]:
        """Intrinsics [3, 3]."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float32)

    def rays(self) -> NDArray[np.float64]:
        """Directions (x, y, 1) [H * W, 3] through the pixel centres."""
        v, u = np.mgrid[: self.height, : self.width]
        x, y = (u - self.cx) / self.fx, (v - self.cy) / self.fy
        return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def depths_of(view: View, size: tuple[int, int], fit: str) -> NDArray[np.float32]:
    """All depths that a view sees at ``size`` [N], whatever their range: of its points, and of the laser."""
    target = fit_camera(pinhole_of(view.camera), size, fit)
    return _together(*_measured(view, target, target.rays()))


def prepare_view(view: View, size: tuple[int, int], fit: str, depth_range: tuple[float, float]) -> PreparedView:
    """Undistort and resize a view. ``size``: (height, width); ``fit``: crop or stretch; ``depth_range`` in the view's unit."""
    target = fit_camera(pinhole_of(view.camera), size, fit)
    rays = target.rays()
    points, laser = _measured(view, target, rays)
    low, high = depth_range
    kept = points[(points[:, 2] >= low) & (points[:, 2] <= high)]
    valid = None if laser is None else _valid(laser, depth_range)
    regions = _lookup_file(view, view.regions, rays, _read_regions)
    return PreparedView(
        image=_remap(view, rays, size, target),
        intrinsics=target.matrix(),
        extrinsics=view.cam_from_world.astype(np.float32),
        points=kept,
        laser=valid,
        regions=None if regions is None else regions.reshape(size).astype(np.uint8),
        seen=_together(points, laser),
    )


def _measured(view: View, target: Pinhole, rays: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """(u, v, z) [M, 3] of the points that the view sees, and the laser's depth [H, W] (not finite or 0: none), of any depth."""
    size = target.height, target.width
    mask = _lookup_file(view, view.mask, rays, _read_mask)
    blocked = (mask & EVALUATION_AND_OBSERVATION) > 0 if mask is not None else np.zeros(len(rays), bool)
    blocked = blocked.reshape(size)
    laser = _lookup_file(view, view.depth, rays, _read_depth)
    if laser is not None:
        laser = laser.reshape(size).astype(np.float32)
        laser[blocked] = 0
        laser /= view.unit
    return project(view.points, view.cam_from_world, target, EVERYTHING, blocked), laser


def _together(points: NDArray[np.float32], laser: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """All depths there are [N]."""
    scanned = np.zeros(0, np.float32) if laser is None else laser[np.isfinite(laser) & (laser > 0)]
    return np.concatenate([points[:, 2], scanned])


def pinhole_of(camera: pycolmap.Camera) -> Pinhole:
    """The pinhole camera that sees what ``camera`` sees without blank borders."""
    flat = camera if camera.is_perspective_pinhole else pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    k = flat.calibration_matrix()
    return Pinhole(k[0, 0], k[1, 1], k[0, 2] - 0.5, k[1, 2] - 0.5, flat.height, flat.width)


def fit_camera(camera: Pinhole, size: tuple[int, int], fit: str) -> Pinhole:
    """``camera`` for an image of ``size`` (height, width): stretched to it, or scaled and cut around the principal point."""
    height, width = size
    if fit == "stretch":
        sx, sy = width / camera.width, height / camera.height
        return Pinhole(
            camera.fx * sx, camera.fy * sy, (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5, height, width
        )
    half_w = min(camera.cx + 0.5, camera.width - camera.cx - 0.5)
    half_h = min(camera.cy + 0.5, camera.height - camera.cy - 0.5)
    s = max(width / (2 * half_w), height / (2 * half_h))
    return Pinhole(camera.fx * s, camera.fy * s, (width - 1) / 2, (height - 1) / 2, height, width)


def project(
    points: NDArray,
    cam_from_world: NDArray,
    camera: Pinhole,
    depth_range: tuple[float, float],
    blocked: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """World points [N, 3] -> (u, v, z) [M, 3] of those inside the image, the depth range and not ``blocked`` [H, W]."""
    local = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    local = local[(local[:, 2] >= depth_range[0]) & (local[:, 2] <= depth_range[1])]
    u = camera.fx * local[:, 0] / local[:, 2] + camera.cx
    v = camera.fy * local[:, 1] / local[:, 2] + camera.cy
    inside = (u > -0.5) & (v > -0.5) & (u < camera.width - 0.5) & (v < camera.height - 0.5)
    u, v, z = u[inside], v[inside], local[inside, 2]
    free = ~blocked[np.rint(v).astype(int), np.rint(u).astype(int)]
    return np.stack([u, v, z], axis=-1)[free].astype(np.float32)


def _valid(depth: NDArray[np.float32], depth_range: tuple[float, float]) -> NDArray[np.float32]:
    low, high = depth_range
    return np.where(np.isfinite(depth) & (depth >= low) & (depth <= high), depth, 0).astype(np.float32)


def _remap(view: View, rays: NDArray, size: tuple[int, int], target: Pinhole) -> NDArray[np.uint8]:
    """The photograph on the target grid: shrunk with a filter first, then sampled bilinearly.

    It is on white where it is transparent, as in the release (vggt/utils/load_fn.py), and never turned: COLMAP, whose cameras
    these are, reads pixels as they are stored, whatever their EXIF orientation.
    """
    camera = view.camera
    places = camera.img_from_cam(rays)
    try:
        with opened(view.image) as photo:
            _check_size(view, photo)
            shrink = min(1.0, target.fx / camera.mean_focal_length())
            small = (max(1, round(camera.width * shrink)), max(1, round(camera.height * shrink)))
            photo.draft("RGB", small)  # JPEG: decodes at a half, a quarter or an eighth
            photo = as_rgb(photo, upright=False, background="white")
            array = np.asarray(photo.resize(small, Image.Resampling.LANCZOS), np.float32)
    except (Unreadable, OSError) as error:
        raise UserError(f"{view.image}: cannot be read as an image: {error}") from None
    grid = torch.from_numpy(np.nan_to_num(places / [camera.width, camera.height] * 2 - 1, nan=-2.0)).float()
    pixels = torch.from_numpy(array).permute(2, 0, 1)[None]
    sampled = F.grid_sample(pixels, grid.view(1, *size, 2), mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def _check_size(view: View, photo: Image.Image) -> None:
    size, expected = photo.size, (view.camera.width, view.camera.height)
    if size == expected:
        return
    orientation = photo.getexif().get(ExifTags.Base.Orientation, 1)
    hint = f"; its EXIF orientation is {orientation}, which COLMAP ignores: save it as its camera says, without that tag"
    said = f"{view.image}: is {size[0]} x {size[1]}, its camera says {expected[0]} x {expected[1]}"
    raise UserError(said + hint * (size == expected[::-1] and orientation != 1))


def _lookup_file(view: View, path: Path | None, rays: NDArray, read) -> NDArray | None:
    """Values [H * W] of a map on the distorted grid, nearest to each ray (bilinear would mix across edges and holes)."""
    if path is None:
        return None
    camera = view.depth_camera
    if camera is None:
        raise UserError(f"{path}: there is no calibration of its (distorted) image {view.name}")
    values = read(path, camera)
    places = camera.img_from_cam(rays)
    with np.errstate(invalid="ignore"):
        inside = (places > 0).all(axis=1) & (places < [camera.width, camera.height]).all(axis=1)
    columns, rows = np.floor(places[inside]).astype(int).T
    out = np.zeros(len(rays), values.dtype)
    out[inside] = values[rows, columns]
    return out


def _read_depth(path: Path, camera: pycolmap.Camera) -> NDArray[np.float32]:
    """ETH3D's laser depth: raw little-endian float32, row by row, whatever the file's name ends with."""
    expected = 4 * camera.width * camera.height
    if path.stat().st_size != expected:
        raise UserError(
            f"{path}: holds {path.stat().st_size} bytes; float32 depth of {camera.width} x {camera.height} has {expected}."
            " It is truncated, or belongs to another image"
        )
    return np.memmap(path, "<f4", mode="r", shape=(camera.height, camera.width))


def _read_mask(path: Path, camera: pycolmap.Camera) -> NDArray[np.uint8]:
    return _read_labels(path, camera, MASK_BITS, "mask bits are 1 (observation) and 2 (evaluation)")


def _read_regions(path: Path, camera: pycolmap.Camera) -> NDArray[np.uint8]:
    return _read_labels(path, camera, max(PLANAR, DETAIL), f"labels are 0, {PLANAR} (planar) and {DETAIL} (detail)")


def _read_labels(path: Path, camera: pycolmap.Camera, highest: int, meaning: str) -> NDArray[np.uint8]:
    try:
        with opened(path) as image:
            values = _labels(image)
    except (Unreadable, OSError) as error:
        raise UserError(f"{path}: cannot be read as an image: {error}") from None
    if values.shape != (camera.height, camera.width):
        raise UserError(f"{path}: has the shape {values.shape}; the distorted image's is {(camera.height, camera.width)}")
    if values.max(initial=0) > highest:
        raise UserError(f"{path}: holds the value {values.max()}; {meaning}")
    return values.astype(np.uint8)


def _labels(image: Image.Image) -> NDArray:
    """The values as they are meant: grey levels, also where a palette holds them to save space, or a palette's numbers."""
    if image.mode == "1" or (image.mode == "P" and all(len(set(colour)) == 1 for colour in image.palette.colors)):
        image = image.convert("L")
    if image.mode not in ("L", "P", "I;16", "I;16B"):
        raise Unreadable(Kind.VALUES, f"mode {image.mode}; labels are whole numbers, one a pixel")
    return np.asarray(image)
