"""One episode of a robot: an HDF5 file with states [T, J], actions [T, K] and pictures, T files or [T, H, W, 3].

Its instruction stands in the file itself, in NAME.json beside it, or in the folder's file, whichever comes first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.outside import MIB, leads_out, read_json
from ablation.systems.opening import read_rgb
from ablation.systems.rdt.data.ranges import Range, range_of
from ablation.systems.rdt.data.unified import Mapping
from ablation.systems.rdt.robots import Robot, View
from ablation.systems.rdt.settings import Data

if TYPE_CHECKING:
    from ablation.systems.rdt.data.lerobot import LeRobotRecording

HDF5 = ".hdf5"
INSTRUCTIONS = "expanded_instruction_gpt-4-turbo.json"
INSTRUCTION_KINDS = ("instruction", "simplified_instruction", "expanded_instruction")
IN_FILE = ("instruction", "language_instruction", "language_raw", "task")  # attributes or datasets, as recorders name it
UNREADABLE = (Exception,)  # h5py and PyAV raise whatever a damaged file leads it to
MOST_STEPS = 1_000_000
MOST_PIXELS = 25_000_000  # of an image
LARGEST_PIECE = 256 * MIB  # a step of a dataset, or a chunk, which HDF5 unpacks as a whole
LARGEST_DATASET = 2**36  # bytes unpacked


class Reason(StrEnum):
    """Why an episode cannot be used."""

    UNREADABLE = "unreadable file"
    OUTSIDE = "leads out of the folder"
    MISSING = "missing dataset"
    STORED = "stored elsewhere, or too large"
    SHAPE = "wrong shape"
    LENGTHS = "lengths differ"
    SHORT = "too short"
    NOT_FINITE = "not finite"
    STILL = "never moves"
    IMAGE = "undecodable image"
    INSTRUCTION = "no instruction"


class Fault(NamedTuple):
    """An episode that cannot be used."""

    path: Path
    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}: {self.detail}"


@dataclass(frozen=True)
class Episode:
    """An episode found whole."""

    name: str
    """Its path below the folder of all episodes, without the suffix."""
    path: Path
    steps: int
    first: int
    """The first step that is used: the one whose action begins the motion."""
    instructions: tuple[tuple[str, ...], ...]
    """Sentences of each kind that there is, of ``INSTRUCTION_KINDS``; the original ones first."""
    files: tuple[Path, ...] = ()
    """All that hold it; several episodes may share one."""
    ranges: tuple[Range, Range] | None = field(default=None, compare=False, repr=False)
    """Of states and actions, as it is examined."""

    @property
    def instruction(self) -> str:
        """The original one."""
        return self.instructions[0][0]


class _Bad(Exception):
    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Recording:
    """An open file of an episode; everything is read when it is asked for."""

    def __init__(self, file: h5py.File, robot: Robot):
        self.file, self.robot = file, robot

    def states(self, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Positions of the steps ``start`` to ``stop`` [N, J]."""
        return self.file[self.robot.state.key][start:stop].astype(np.float64)

    def actions(self, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Targets of the steps ``start`` to ``stop`` [N, K]; fewer at the end."""
        return self.file[self.robot.action.key][start:stop].astype(np.float64)

    def image(self, view: View, step: int, jpeg: str) -> NDArray[np.uint8]:
        """What a camera saw at ``step`` [H, W, 3], RGB; ``jpeg`` is the order of the colours in JPEG files."""
        return decoded(self.file[self.robot.cameras[view]][step], jpeg)


@contextmanager
def recording(path: Path, robot: Robot) -> Iterator["Recording | LeRobotRecording"]:
    """An episode, open as long as needed: no handle crosses into another process."""
    if path.suffix != HDF5:
        from ablation.systems.rdt.data.lerobot import lerobot_recording

        with lerobot_recording(path, robot) as opened:
            yield opened
        return
    with h5py.File(path, "r", locking="best-effort") as file:
        yield Recording(file, robot)


def decoded(stored: NDArray | bytes, jpeg: str) -> NDArray[np.uint8]:
    """A stored image [H, W, 3], or the bytes of a file, zeros at the end allowed; raises OSError or ValueError.

    Transparency is dropped and EXIF orientation followed, as by ``cv2.imdecode`` in the release (data/hdf5_vla_dataset.py).
    """
    if isinstance(stored, np.ndarray) and stored.ndim == 3:
        return stored
    pixels = np.asarray(read_rgb(BytesIO(bytes(stored)), upright=True, background=None, most=MOST_PIXELS))
    return np.ascontiguousarray(pixels[..., ::-1]) if jpeg == "bgr" else pixels


def examine(root: Path, path: Path, data: Data) -> Episode | Fault:
    """The episode below ``root`` if it is whole, else what is wrong with it. Every image is decoded."""
    if leads_out(root, path):
        return Fault(path, Reason.OUTSIDE, str(path.resolve()))
    try:
        with recording(path, data.mapping) as opened:
            if isinstance(opened, Recording):
                _check_stored(opened, data)
            steps, first, ranges = _examine_values(opened, data)
            instructions = (_in_file(opened.file) or _beside(path)) if isinstance(opened, Recording) else _task(opened)
            files = (path,) if isinstance(opened, Recording) else tuple(opened.files())
        name = path.relative_to(root).with_suffix("").as_posix()
        return Episode(name, path, steps, first, instructions, files, ranges)
    except _Bad as bad:
        return Fault(path, bad.reason, bad.detail)
    except UNREADABLE as error:
        return Fault(path, Reason.UNREADABLE, str(error))


def read_image(opened: "Recording | LeRobotRecording", path: Path, view: View, step: int, jpeg: str) -> NDArray[np.uint8]:
    """As :meth:`Recording.image`; an image that turns out to be broken is an error that names it."""
    try:
        return opened.image(view, step, jpeg)
    except UNREADABLE as error:
        raise UserError(f"{path}: {opened.robot.cameras[view]}, step {step}: {error}; remove the episode") from error


def first_moving(states: NDArray, still: float) -> int | None:
    """The last step before any number of ``states`` [T, J] is more than ``still`` from where it began; None if none ever is."""
    moved = (np.abs(states - states[:1]) > still).any(axis=1)
    return int(moved.argmax()) - 1 if moved.any() else None


def _check_stored(opened: Recording, data: Data) -> None:
    """The datasets of an HDF5 file are there, of the right shapes, and of one length."""
    robot = data.mapping
    vectors = [Mapping(robot.state), Mapping(robot.action)]
    names = dict.fromkeys([*(vector.key for vector in vectors), *(robot.cameras[view] for view in data.views)])
    datasets = {name: _dataset(opened.file, name) for name in names}
    for vector in vectors:
        _check_numbers(datasets[vector.key], vector.key, vector.width)
    for view in data.views:
        _check_images(datasets[robot.cameras[view]], robot.cameras[view])
    _check_lengths({name: len(dataset) for name, dataset in datasets.items()})


def _examine_values(opened: "Recording | LeRobotRecording", data: Data) -> tuple[int, int, tuple[Range, Range]]:
    """Steps of the episode, the first to use, and the ranges of states and actions."""
    vectors, states, actions = [Mapping(data.mapping.state), Mapping(data.mapping.action)], opened.states(), opened.actions()
    steps = len(states)
    if steps < data.min_steps:
        raise _Bad(Reason.SHORT, f"{steps} steps, fewer than {data.min_steps}")
    for vector, values in zip(vectors, (states, actions), strict=True):
        _check_finite(values, vector.key)
    first = first_moving(states, data.still)
    if first is None:
        raise _Bad(Reason.STILL, f"nothing moves by more than {data.still:g} in {steps} steps")
    for view in data.views:
        _check_decodable(opened, view, steps, data.jpeg)
    return steps, first, (range_of(states, vectors[0]), range_of(actions, vectors[1]))


def _task(opened: "LeRobotRecording") -> tuple[tuple[str, ...], ...]:
    """The one task of an episode, whose frames all have it."""
    listed = opened.listed
    if len(opened.states()) != listed.steps:
        raise _Bad(Reason.LENGTHS, f"meta has {listed.steps} steps, the table {len(opened.states())}")
    if len(set(opened.column("task_index").to_pylist())) > 1 or len(listed.tasks) != 1 or not listed.tasks[0].strip():
        raise _Bad(
            Reason.INSTRUCTION, f"tasks: {', '.join(map(repr, listed.tasks)) or 'none'}; one for the whole episode is needed"
        )
    return (listed.tasks,)


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of that name, in this file: HDF5 would follow links into others, and read any file as one."""
    found = file
    for step in name.split("/"):
        link = found.get(step, getlink=True) if isinstance(found, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise _Bad(Reason.MISSING, f"/{name}")
        found = found[step]
    if not isinstance(found, h5py.Dataset) or not found.ndim:
        raise _Bad(Reason.MISSING, f"/{name}")
    if found.external or found.is_virtual:
        raise _Bad(Reason.STORED, f"/{name} is in other files")
    if len(found) > MOST_STEPS or found.nbytes > LARGEST_DATASET:
        raise _Bad(Reason.STORED, f"/{name} has {len(found):,} steps of {found.nbytes:,} bytes")
    step = found.nbytes // max(1, len(found))
    chunk = int(np.prod(found.chunks, dtype=object)) * found.dtype.itemsize if found.chunks else 0
    if max(step, chunk) > LARGEST_PIECE:
        raise _Bad(Reason.STORED, f"/{name} comes in pieces of {max(step, chunk):,} bytes")
    return found


def _check_numbers(dataset: h5py.Dataset, name: str, width: int) -> None:
    if dataset.ndim != 2 or dataset.shape[1] != width or dataset.dtype.kind not in "fiu":
        raise _Bad(Reason.SHAPE, f"/{name} is {dataset.dtype} {list(dataset.shape)}, not numbers [T, {width}]")


def _check_images(dataset: h5py.Dataset, name: str) -> None:
    pixels = dataset.ndim == 4 and dataset.shape[-1] == 3 and dataset.dtype == np.uint8
    padded_files = dataset.ndim == 2 and dataset.dtype == np.uint8
    files = dataset.ndim == 1 and dataset.dtype.kind in "SOV"
    if not (pixels or padded_files or files):
        raise _Bad(Reason.SHAPE, f"/{name} is {dataset.dtype} {list(dataset.shape)}, neither files [T] nor uint8 [T, H, W, 3]")


def _check_lengths(lengths: dict[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        raise _Bad(Reason.LENGTHS, ", ".join(f"/{name} {length}" for name, length in lengths.items()))


def _check_finite(values: NDArray, name: str) -> None:
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        raise _Bad(Reason.NOT_FINITE, f"/{name} at step {int(wrong.argmax())}, {int(wrong.sum())} steps in all")


def _check_decodable(opened: "Recording | LeRobotRecording", view: View, steps: int, jpeg: str) -> None:
    for step in range(steps):
        try:
            opened.image(view, step, jpeg)
        except UNREADABLE as error:
            raise _Bad(Reason.IMAGE, f"{opened.robot.cameras[view]}, step {step}: {error}") from error


def _in_file(file: h5py.File) -> tuple[tuple[str, ...], ...] | None:
    """The instruction that the file itself holds, as an attribute or a dataset of one text."""
    for name in IN_FILE:
        stored = file.attrs.get(name)
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            dataset = file[name]
            stored = dataset[()] if isinstance(dataset, h5py.Dataset) and dataset.shape == () and not dataset.external else None
        text = stored.decode("utf-8") if isinstance(stored, bytes) else stored
        if isinstance(text, str) and text.strip():
            return ((text,),)
    return None


def _beside(path: Path) -> tuple[tuple[str, ...], ...]:
    """The instructions of the episode's own file NAME.json, or else of its folder's."""
    own = path.with_suffix(".json")
    return _instructions(own if own.is_file() else path.parent / INSTRUCTIONS)


def _instructions(path: Path) -> tuple[tuple[str, ...], ...]:
    """The sentences of each kind that there is; a kind is a sentence or a list of them. A text alone is the instruction."""
    try:
        written = read_json(path, MIB)
    except UserError as error:
        raise _Bad(Reason.INSTRUCTION, f"{path.name}: {error}") from error
    written = {INSTRUCTION_KINDS[0]: written} if isinstance(written, str) else written
    kinds = [
        kind for kind in INSTRUCTION_KINDS if kind == INSTRUCTION_KINDS[0] or (isinstance(written, dict) and kind in written)
    ]
    return tuple(_sentences(written, kind, path) for kind in kinds)


def _sentences(written: object, kind: str, path: Path) -> tuple[str, ...]:
    value = written.get(kind) if isinstance(written, dict) else None
    sentences = value if isinstance(value, list) else [value]
    if not sentences or not all(isinstance(sentence, str) and sentence.strip() for sentence in sentences):
        raise _Bad(Reason.INSTRUCTION, f"{path.name} has no text for {kind}")
    return tuple(sentences)
