"""The released layout of a shape's data.

``{uid}/geo_data/``: ``{uid}_surface.npz``, ``{uid}_sdf.npz`` and ``{uid}_watertight.obj``, which those were made from;
``{uid}/render_cond/``: pictures ``000.png`` ..., their cameras ``transforms.json``, and what they show, ``mesh.ply``.
"""

from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.outside import MIB

REGIONS = ("vol", "random_near", "sharp_near")
"""Where distances are known: all over the box, near the surface, near its sharp edges."""
LARGEST = 1024 * MIB  # bytes of the arrays of a file, unpacked; those of the release have about 10 million
MISFIT = "is this the release's layout?"


class SurfacePoints(NamedTuple):
    """Places and normals of points, [N, 6] each: evenly over the surface, and on its sharp edges."""

    random: NDArray[np.floating]
    sharp: NDArray[np.floating]


class Distances(NamedTuple):
    """Places [N, 3] and their distances to the surface [N], positive outside."""

    points: NDArray[np.floating]
    values: NDArray[np.floating]


def geometry_files(root: Path, uid: str) -> tuple[Path, Path]:
    """The files of the surface's points and of the distances of shape ``uid``."""
    folder = _folder(root, uid) / "geo_data"
    return folder / f"{uid}_surface.npz", folder / f"{uid}_sdf.npz"


def watertight_file(root: Path, uid: str) -> Path:
    """The mesh of shape ``uid``, in the places of its surface's points."""
    return _folder(root, uid) / "geo_data" / f"{uid}_watertight.obj"


def render_folder(root: Path, uid: str) -> Path:
    """Where the pictures of shape ``uid`` are."""
    return _folder(root, uid) / "render_cond"


def render_files(root: Path, uid: str) -> list[Path]:
    """The pictures of shape ``uid``, in order; raises UserError if there are none."""
    folder = render_folder(root, uid)
    found = sorted(folder.glob("[0-9][0-9][0-9].png"))
    if not found:
        raise UserError(f"{folder}: holds no pictures 000.png, 001.png ...; {MISFIT}")
    return found


def camera_file(root: Path, uid: str) -> Path:
    """The cameras of those pictures."""
    return render_folder(root, uid) / "transforms.json"


def _folder(root: Path, uid: str) -> Path:
    if uid in ("", ".", "..") or Path(uid).name != uid:
        raise UserError(f"{uid!r} cannot be the name of a shape: it is the name of a folder in {root}")
    return root / uid


def read_surface(path: Path) -> SurfacePoints:
    """``random_surface`` and ``sharp_surface``, in fp32 (on disk: fp16)."""
    read = _read(path, ["random_surface", "sharp_surface"])
    for name, value in read.items():
        if value.ndim != 2 or value.shape[1] != 6:
            raise UserError(f"{path}: {name} has the shape {value.shape}, not (points, 6): places and normals; {MISFIT}")
    return SurfacePoints(*read.values())


def read_distances(path: Path) -> dict[str, Distances]:
    """By region; in fp32."""
    read = _read(path, [f"{region}_{kind}" for region in REGIONS for kind in ("points", "label")])
    out = {region: Distances(read[f"{region}_points"], read[f"{region}_label"].reshape(-1)) for region in REGIONS}
    for region, (points, values) in out.items():
        if points.shape != (len(values), 3):
            raise UserError(f"{path}: {region} has places {points.shape} and {len(values)} distances; {MISFIT}")
    return out


def write_shape(root: Path, uid: str, surface: SurfacePoints, distances: dict[str, Distances]) -> None:
    """Both files of shape ``uid``, in fp16 as in the release."""
    surface_path, distances_path = geometry_files(root, uid)
    surface_path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(surface_path, random_surface=surface.random.astype(np.float16), sharp_surface=surface.sharp.astype(np.float16))
    arrays = {}
    for region in REGIONS:
        arrays[f"{region}_points"] = distances[region].points.astype(np.float16)
        arrays[f"{region}_label"] = distances[region].values.astype(np.float16)
    np.savez(distances_path, **arrays)


def pick_points(surface: SurfacePoints, random: int, sharp: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """[random + sharp, 7]: place, unit normal, and 1 on a sharp edge, else 0; no row twice. The encoder's input."""
    parts = []
    for label, (rows, count) in enumerate(((surface.random, random), (surface.sharp, sharp))):
        if count > len(rows):
            kind = ("surface", "sharp edges")[label]
            raise UserError(f"{count} points of the {kind} are wanted, the shape has {len(rows)}")
        chosen = rows[rng.choice(len(rows), count, replace=False)].astype(np.float32)
        parts.append(np.concatenate([chosen[:, :3], _unit(chosen[:, 3:]), np.full((count, 1), label, np.float32)], axis=1))
    return np.concatenate(parts)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _check_archive(path: Path) -> None:
    with ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > LARGEST:
        raise UserError(f"{path}: unpacks to {unpacked:,} bytes; at most {LARGEST:,} are read")


def _read(path: Path, names: list[str]) -> dict[str, NDArray[np.float32]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            absent = [name for name in names if name not in file]
            if absent:
                raise UserError(f"{path}: holds no {', '.join(absent)}; {MISFIT}")
            return {name: file[name].astype(np.float32) for name in names}
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(f"{path}: cannot be read ({error}); is it truncated?") from None
