"""COLMAP models as scenes come with them: read by pycolmap, and mended first where pycolmap would refuse.

pycolmap wants the observation lines of ``images.txt`` and the tracks of ``points3D.txt`` to agree to the letter. Published
models often do not: the second line of an image is empty or cut short, while the tracks still tell who saw what.
"""

import math
import re
import signal
import struct
import threading
import zlib  # noqa: F401  (before pycolmap: its own zlib would shadow the system's and corrupt PNGs)
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pycolmap

from ablation.errors import UserError
from ablation.outside import MIB, read_bytes, read_text

FILES = ("cameras", "images", "points3D")
if threading.current_thread() is threading.main_thread():
    # pycolmap takes SIGTERM for itself and aborts on it; a trainer leaves in time on it.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))

READ_ERRORS = (ValueError, IndexError, RuntimeError, MemoryError, OverflowError)  # what pycolmap raises
LARGEST = 2048 * MIB  # bytes of a file
LONGEST_SIDE = 65_535  # of a picture, in pixels
CAMERA_FIELDS, IMAGE_FIELDS, POINT_FIELDS = 4, 10, 8  # least numbers of fields of a line


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """The COLMAP model of ``folder``, text or binary. Raises :class:`UserError` naming the file that is at fault."""
    suffix = _suffix(folder)
    model = _read_binary(folder) if suffix == ".bin" else _read_text(folder)
    _check_usable(folder, model, suffix)
    if suffix == ".txt":
        _check_complete(folder, model)
    return model


def _read_binary(folder: Path) -> pycolmap.Reconstruction:
    check_binary(folder)
    try:
        with _alone(folder, ".bin") as three:
            return pycolmap.Reconstruction(str(three))
    except READ_ERRORS as error:
        raise UserError(f"{folder}: the binary COLMAP model cannot be read: a file is truncated or damaged ({error})") from None


def _read_text(folder: Path) -> pycolmap.Reconstruction:
    model = _read_three_texts(folder)
    for number, name in _names(folder / "images.txt"):
        if number in model.images and " " in name:  # of which pycolmap takes the first word
            model.images[number].name = name
    return model


def _names(path: Path) -> Iterator[tuple[int, str]]:
    """Number and name of every image: the rest of the first of its two lines, which may hold spaces."""
    lines = iter(read_text(path, LARGEST).splitlines())
    for line in lines:
        if line.strip() and not line.startswith("#"):
            number, *_, name = line.strip().split(maxsplit=IMAGE_FIELDS - 1)
            if number.isdecimal():
                yield int(number), name
            next(lines, None)


def _read_three_texts(folder: Path) -> pycolmap.Reconstruction:
    for name in FILES:
        read_text(folder / f"{name}.txt", LARGEST)
    try:
        with _alone(folder, ".txt") as three:
            return pycolmap.Reconstruction(str(three))
    except READ_ERRORS:
        with TemporaryDirectory() as mended:
            try:
                _mend(folder, Path(mended))
                return pycolmap.Reconstruction(mended)
            except READ_ERRORS as error:
                raise UserError(f"{folder}: the COLMAP model cannot be read ({error})") from None


@contextmanager
def _alone(folder: Path, suffix: str) -> Iterator[Path]:
    """A folder with the three files of the model and nothing else that pycolmap would read: poses are in them."""
    with TemporaryDirectory() as three:
        for name in FILES:
            (Path(three) / f"{name}{suffix}").symlink_to((folder / f"{name}{suffix}").resolve())
        yield Path(three)


def check_binary(folder: Path) -> None:
    """Raises UserError where a file says that more follows than it holds: pycolmap would make room for it."""
    parameters = {
        int(model.value): len(pycolmap.Camera.create_from_model_name(1, name, 1.0, 1, 1).params)
        for name, model in pycolmap.CameraModelId.__members__.items()
        if name != "INVALID"
    }
    for name, size in (("cameras", _camera_size), ("images", _image_size), ("points3D", _point_size)):
        path = folder / f"{name}.bin"
        content = read_bytes(path, LARGEST)
        try:
            place = 8
            (count,) = struct.unpack_from("<Q", content)
            for _ in range(count):
                place += size(content, place, parameters)
        except (struct.error, KeyError, ValueError, OverflowError):
            place = -1
        if place != len(content):
            raise UserError(f"{path}: the binary COLMAP model is truncated or damaged: it does not hold what it says")


def _camera_size(content: bytes, place: int, parameters: dict[int, int]) -> int:
    _, model, *_ = struct.unpack_from("<IiQQ", content, place)
    return 24 + 8 * parameters[model]


def _image_size(content: bytes, place: int, _: dict[int, int]) -> int:
    struct.unpack_from("<I7dI", content, place)
    name = content.index(b"\0", place + 64)
    (count,) = struct.unpack_from("<Q", content, name + 1)
    return name + 9 - place + 24 * count


def _point_size(content: bytes, place: int, _: dict[int, int]) -> int:
    *_, count = struct.unpack_from("<Q3d3BdQ", content, place)
    return 51 + 8 * count


def _check_usable(folder: Path, model: pycolmap.Reconstruction, suffix: str) -> None:
    """Cameras that see something, and pictures with names and places; numbers that are none would do harm later."""
    for number, camera in model.cameras.items():
        centre = (camera.principal_point_x, camera.width), (camera.principal_point_y, camera.height)
        if not (
            all(map(math.isfinite, camera.params))
            and all(0 < middle < side <= LONGEST_SIDE for middle, side in centre)
            and 0 < camera.mean_focal_length() < 1000 * LONGEST_SIDE
        ):
            raise UserError(
                f"{folder / f'cameras{suffix}'}: camera {number} is none: {camera.width} x {camera.height}, {camera.params}"
            )
    path = folder / f"images{suffix}"
    for number, image in model.images.items():
        try:
            name, pose = image.name, image.cam_from_world().matrix()
        except READ_ERRORS as error:
            raise UserError(f"{path}: image {number} has no name or no place ({error})") from None
        if not name.isprintable() or not math.isfinite(pose.sum()):
            raise UserError(f"{path}: image {number}: {name!r} is no name, or its place is not finite")


def _check_complete(folder: Path, model: pycolmap.Reconstruction) -> None:
    """pycolmap takes the first part of a truncated text for the whole; the header and the last line know better."""
    counts = {"cameras": model.num_cameras(), "images": model.num_images(), "points3D": model.num_points3D()}
    for name, count in counts.items():
        path = folder / f"{name}.txt"
        lines = read_text(path, LARGEST).splitlines()
        said = next((match[1] for line in lines[:8] if (match := re.match(r"# Number of \w+: (\d{1,18})\b", line))), None)
        if said is not None and int(said) != count:
            raise UserError(
                f"{path}: its header says {said} {name}, it holds {count}: truncated, or filtered without its header"
            )
    if lines and (len(lines[-1].split()) - POINT_FIELDS) % 2 and not lines[-1].startswith("#"):
        raise UserError(f"{path}:{len(lines)}: ends inside a track; is it truncated?")


def _suffix(folder: Path) -> str:
    for suffix in (".bin", ".txt"):
        if all((folder / f"{name}{suffix}").is_file() for name in FILES):
            return suffix
    missing = [f"{name}.txt" for name in FILES if not (folder / f"{name}.txt").is_file()]
    raise UserError(f"{folder}: no COLMAP model: {', '.join(missing)} missing")


def _mend(folder: Path, out: Path) -> None:
    """Write an equal model in which observations and tracks agree; the tracks are believed."""
    cameras = _cameras(folder / "cameras.txt")
    images = _images(folder / "images.txt", cameras)
    points = _points(folder / "points3D.txt", images)
    seen: dict[int, dict[int, str]] = {image: {} for image in images}
    for point, (_, track) in points.items():
        for image, index in track:
            seen[image][index] = str(point)

    (out / "cameras.txt").write_text(read_text(folder / "cameras.txt", LARGEST), encoding="utf-8")
    lines = []
    for image, (header, places) in images.items():
        count = max([len(places), *(index + 1 for index in seen[image])])
        places = places + [("0", "0")] * (count - len(places))
        lines += [header, " ".join(f"{x} {y} {seen[image].get(i, '-1')}" for i, (x, y) in enumerate(places))]
    (out / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [" ".join([head, *(f"{image} {index}" for image, index in track)]) for head, track in points.values()]
    (out / "points3D.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _cameras(path: Path) -> set[int]:
    found = set()
    for number, fields in _lines(path):
        if len(fields) <= CAMERA_FIELDS:
            raise UserError(f"{path}:{number}: a camera needs an id, a model, two sizes and parameters")
        if fields[1] == "INVALID" or fields[1] not in pycolmap.CameraModelId.__members__:
            raise UserError(f"{path}:{number}: {fields[1]} is no camera model that COLMAP knows")
        wanted = len(pycolmap.Camera.create_from_model_name(1, fields[1], 1.0, 1, 1).params)
        if len(fields) != CAMERA_FIELDS + wanted:
            given = len(fields) - CAMERA_FIELDS
            raise UserError(f"{path}:{number}: {fields[1]} has {wanted} parameters, {given} given; is the line cut short?")
        found.add(_integer(path, number, fields[0]))
    return found


def _images(path: Path, cameras: set[int]) -> dict[int, tuple[str, list[tuple[str, str]]]]:
    """Image id -> header line and the places of its observations; what is left of a ragged line's last triple is dropped."""
    raw = [(number, line.strip()) for number, line in enumerate(read_text(path, LARGEST).splitlines(), 1)]
    raw = [(number, line) for number, line in raw if not line.startswith("#")]
    while raw and not raw[0][1]:
        raw.pop(0)
    found = {}
    for k in range(0, len(raw), 2):
        number, header = raw[k]
        fields = header.split()
        if not fields and k == len(raw) - 1:
            break
        if len(fields) < IMAGE_FIELDS:
            raise UserError(
                f"{path}:{number}: an image needs {IMAGE_FIELDS} fields, {len(fields)} given; is the file truncated?"
            )
        if _integer(path, number, fields[8]) not in cameras:
            raise UserError(f"{path}:{number}: camera {fields[8]} of {fields[9]} is not in cameras.txt")
        places = raw[k + 1][1].split() if k + 1 < len(raw) else []
        triples = [places[i : i + 3] for i in range(0, len(places) - 2, 3)]
        found[_integer(path, number, fields[0])] = (header, [_place(path, number + 1, t) for t in triples])
    return found


def _place(path: Path, number: int, triple: list[str]) -> tuple[str, str]:
    try:
        float(triple[0]), float(triple[1])
    except ValueError:
        raise UserError(f"{path}:{number}: {' '.join(triple)!r} is no observation (x, y, point)") from None
    return triple[0], triple[1]


def _points(path: Path, images: dict[int, tuple]) -> dict[int, tuple[str, list[tuple[int, int]]]]:
    """Point id -> its fields before the track, and the track as (image, observation index)."""
    found = {}
    for number, fields in _lines(path):
        if len(fields) < POINT_FIELDS or (len(fields) - POINT_FIELDS) % 2:
            raise UserError(
                f"{path}:{number}: a point needs {POINT_FIELDS} fields and pairs of image and index; is the file truncated?"
            )
        numbers = [_integer(path, number, field) for field in fields[POINT_FIELDS:]]
        track = list(zip(numbers[::2], numbers[1::2], strict=True))
        for image, _ in track:
            if image not in images:
                raise UserError(
                    f"{path}:{number}: image {image} is not in images.txt; is that file truncated, or from another model?"
                )
        found[_integer(path, number, fields[0])] = (" ".join(fields[:POINT_FIELDS]), track)
    return found


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_text(path, LARGEST).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.split()


def _integer(path: Path, number: int, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{path}:{number}: {text!r} is not a whole number") from None
