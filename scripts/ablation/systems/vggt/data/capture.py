"""The demo's scenes, made from real photographs and written as ETH3D scenes.

``motorcycle`` is the Middlebury 2014 stereo pair with its measured disparity (Scharstein et al., GCPR 2014; shipped with
scikit-image). The others are rooms covered with photographs, photographed by a fisheye camera and reconstructed by
COLMAP: their cameras and points are what structure from motion made of the pictures.
"""

import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from ablation.errors import UserError
from ablation.systems.vggt.data.layout import CALIBRATIONS, DISTORTED
from ablation.systems.vggt.data.render import Film
from ablation.systems.vggt.data.worlds import BRICK, DEMO_PHOTOS, Album, room, walk_past

HEIGHT, WIDTH = 320, 480
VIEWS = 8
FISHEYE = [340.0, 340.0, WIDTH / 2, HEIGHT / 2, -0.03, 0.01, 0.001, -0.001, 0.0, 0.0, 0.0, 0.0]  # THIN_PRISM_FISHEYE

ROOMS: dict[str, tuple[int, float]] = {  # seed, metres to the camera
    "library": (21, 5.5),
    "studio": (22, 5.0),
    "parlour": (23, 5.2),
    "gallery": (24, 5.4),
}

MOTORCYCLE_FOCAL, MOTORCYCLE_CENTRE = 994.978, (311.193, 254.877)  # pixels
MOTORCYCLE_BASELINE, MOTORCYCLE_SHIFT = 0.193001, 31.086  # metres; difference of the principal points in pixels


def capture(scene: str, out: Path) -> None:
    """Write a scene of the demo as the ETH3D scene ``out / scene``."""
    folder = out / scene
    for part in ("images", "ground_truth_depth"):
        (folder / part / DISTORTED).mkdir(parents=True, exist_ok=True)
    if scene == "motorcycle":
        _capture_motorcycle(folder)
    else:
        _capture_room(folder, scene)


def _capture_room(folder: Path, scene: str) -> None:
    seed, distance = ROOMS[scene]
    rng = np.random.default_rng(seed)
    world = room(Album(DEMO_PHOTOS, rng), BRICK)
    poses = walk_past(rng, VIEWS, distance, span=4.0)
    camera = pycolmap.Camera(model="THIN_PRISM_FISHEYE", width=WIDTH, height=HEIGHT, params=FISHEYE, camera_id=1)
    film = Film(camera.cam_from_img, HEIGHT, WIDTH, FISHEYE[0])
    for number, pose in enumerate(poses, start=1):
        image, depth = film.expose(world, pose)
        _write_view(folder, _name(number), image, depth)
    model = _reconstruct(folder / "images", camera)
    _to_metres(model, {_name(number): pose for number, pose in enumerate(poses, start=1)})
    _write_model(folder, model)


def _name(number: int) -> str:
    return f"DSC_{number:04d}.JPG"


def _write_view(folder: Path, name: str, image: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
    Image.fromarray(image).save(folder / "images" / DISTORTED / name, format="JPEG", quality=95, subsampling=0)
    depth.astype("<f4").tofile(folder / "ground_truth_depth" / DISTORTED / name)


def _write_model(folder: Path, model: pycolmap.Reconstruction) -> None:
    (folder / CALIBRATIONS[DISTORTED]).mkdir(exist_ok=True)
    model.write_text(str(folder / CALIBRATIONS[DISTORTED]))


def _reconstruct(images: Path, camera: pycolmap.Camera) -> pycolmap.Reconstruction:
    """Structure from motion with known intrinsics, on one thread and with fixed seeds so that it repeats."""
    with TemporaryDirectory() as scratch:
        database = Path(scratch) / "database.db"
        _match(database, images, [camera])
        options = _mapping_options()
        models = pycolmap.incremental_mapping(database, images, Path(scratch) / "models", options=options)
    best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
    if best is None or best.num_reg_images() < VIEWS:
        found = 0 if best is None else best.num_reg_images()
        raise UserError(f"{images}: COLMAP placed {found} of {VIEWS} pictures; the scene cannot be used")
    return best


def _mapping_options() -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = 1, 0
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    return options


def _match(database: Path, images: Path, cameras: list[pycolmap.Camera]) -> None:
    """Features of all pictures and the matches between them; one camera took all, or each its own."""
    pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
    pycolmap.set_random_seed(0)
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model, reader.camera_params = cameras[0].model_name, cameras[0].params_to_string()
    mode = pycolmap.CameraMode.SINGLE if len(cameras) == 1 else pycolmap.CameraMode.PER_IMAGE
    extraction, matching = pycolmap.FeatureExtractionOptions(), pycolmap.FeatureMatchingOptions()
    extraction.num_threads = matching.num_threads = 1
    extraction.use_gpu = matching.use_gpu = False
    cpu = pycolmap.Device.cpu
    pycolmap.extract_features(
        database, images, camera_mode=mode, reader_options=reader, extraction_options=extraction, device=cpu
    )
    with pycolmap.Database.open(database) as db:
        for camera in cameras:
            camera.has_prior_focal_length = True
            db.update_camera(camera)
    pycolmap.match_exhaustive(database, matching_options=matching, device=cpu)


def _to_metres(model: pycolmap.Reconstruction, poses: dict[str, NDArray[np.float64]]) -> None:
    """Move and scale the reconstruction onto the surveyed camera positions, as ETH3D's models are registered to the scans."""
    images = list(model.images.values())
    ours = np.array([image.projection_center() for image in images])
    surveyed = np.array([-pose[:, :3].T @ pose[:, 3] for pose in (poses[Path(image.name).name] for image in images)])
    model.transform(pycolmap.estimate_sim3d(ours, surveyed))


def _capture_motorcycle(folder: Path) -> None:
    left, right, disparity = data.stereo_motorcycle()
    disparity = np.where(np.isfinite(disparity), disparity, np.nan)
    height, width = disparity.shape
    depth = MOTORCYCLE_BASELINE * MOTORCYCLE_FOCAL / (disparity + MOTORCYCLE_SHIFT)
    _write_view(folder, _name(1), left, np.where(np.isfinite(depth), depth, np.inf).astype(np.float32))
    _write_view(folder, _name(2), right, _seen_from_the_right(depth, disparity))
    cx, cy = MOTORCYCLE_CENTRE
    centres = {1: cx, 2: cx + MOTORCYCLE_SHIFT}
    cameras = [
        pycolmap.Camera(
            model="PINHOLE",
            width=width,
            height=height,
            camera_id=i,
            params=[MOTORCYCLE_FOCAL, MOTORCYCLE_FOCAL, c + 0.5, cy + 0.5],
        )
        for i, c in centres.items()
    ]
    _write_model(folder, _triangulate(folder / "images", cameras))


def _seen_from_the_right(depth: NDArray, disparity: NDArray) -> NDArray[np.float32]:
    """The left view's depth moved to the right view's pixels; the nearest surface wins, inf where none arrives."""
    _, width = depth.shape
    rows, columns = np.nonzero(np.isfinite(depth))
    targets = np.rint(columns - disparity[rows, columns]).astype(int)
    inside = (targets >= 0) & (targets < width)
    rows, columns, targets = rows[inside], columns[inside], targets[inside]
    order = np.argsort(-depth[rows, columns], kind="stable")
    moved = np.full(depth.shape, np.inf, np.float32)
    moved[rows[order], targets[order]] = depth[rows[order], columns[order]]
    return moved


def _triangulate(images: Path, cameras: list[pycolmap.Camera]) -> pycolmap.Reconstruction:
    """COLMAP points between two views whose cameras are known: left at the origin, right a baseline along x."""
    with TemporaryDirectory() as scratch:
        database = Path(scratch) / "database.db"
        _match(database, images, cameras)
        with pycolmap.Database.open(database) as db:
            stored = sorted(db.read_all_images(), key=lambda image: image.name)
            known = pycolmap.Reconstruction()
            for camera, image, x in zip(cameras, stored, (0.0, -MOTORCYCLE_BASELINE), strict=True):
                known.add_camera_with_trivial_rig(camera)
                placed = pycolmap.Image(name=image.name, camera_id=camera.camera_id, image_id=image.image_id)
                known.add_image_with_trivial_frame(placed, pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([x, 0, 0])))
        options = _mapping_options()
        options.triangulation.ignore_two_view_tracks = False  # there are only two views
        return pycolmap.triangulate_points(known, database, images, Path(scratch), options=options)
