"""LeRobot data sets (github.com/huggingface/lerobot), v2.1 and v3.0: tables in Parquet, pictures in them or in MP4 files.

::

    meta/info.json                        version, fps, features, where data and videos lie
    v2.1  meta/{episodes,tasks}.jsonl     an episode a line: its tasks and length; a task a line
          data/..., videos/...            a file an episode
    v3.0  meta/episodes/**/*.parquet, meta/tasks.parquet
          data/..., videos/...            many episodes a file; where an episode begins stands in meta/episodes
"""

import json
import re
from collections.abc import Iterator
from collections.abc import Mapping as Table
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.outside import MIB, leads_out, read_json, read_text
from ablation.systems.opening import read_rgb
from ablation.systems.rdt.data.unified import Mapping
from ablation.systems.rdt.data.video import Video
from ablation.systems.rdt.robots import Robot, View

INFO = "meta/info.json"
VERSIONS = ("v2.1", "v3.0")
NAME = re.compile(r"episode_(\d{6,})")
FIELD = re.compile(r"\{(\w+)(?::0\d+d)?\}")
LARGEST = 512 * MIB  # bytes of a text file
EPISODE, TASK, TIME = "episode_index", "task_index", "timestamp"


class Place(NamedTuple):
    """Where a camera's frames of an episode are: a file, and the time in it at which the episode begins, in s."""

    file: Path
    start: float


class Listed(NamedTuple):
    """An episode as the meta data have it."""

    steps: int
    tasks: tuple[str, ...]
    data: Path
    videos: Table[str, Place]


class DataSet:
    """The data set in the folder ``root``. UserError naming the file that is missing or wrong."""

    def __init__(self, root: Path):
        self.root = root
        info = read_json(root / INFO, LARGEST)
        if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
            raise UserError(f"{root / INFO}: is none of a LeRobot data set: it lists no features")
        self.version, self.info, self.features = info.get("codebase_version"), info, info["features"]
        if self.version not in VERSIONS:
            raise UserError(
                f"{root / INFO}: codebase_version {self.version!r} is not read; {' and '.join(VERSIONS)} are. Convert it with"
                " lerobot's scripts (lerobot/datasets/v21, lerobot/datasets/v30)"
            )
        self.fps = info.get("fps")
        self.videos = [key for key, feature in self.features.items() if feature.get("dtype") == "video"]
        try:
            self.episodes = self._listed_v2() if self.version == "v2.1" else self._listed_v3()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{root / 'meta'}: the list of episodes does not fit info.json ({error!r})") from None

    def check(self, robot: Robot, frequency: int) -> None:
        """UserError where the mapping does not fit the features, or the frequency is another."""
        where = self.root / INFO
        for vector, key in ((robot.state, robot.state.key), (robot.action, robot.action.key)):
            shape, width = self._feature(key).get("shape"), Mapping(vector).width
            if shape != [width]:
                holds = self._feature(key).get("names")
                raise UserError(f"{where}: {key} has the shape {shape}, data.robot's mapping {width} numbers: {holds}")
        for key in robot.cameras.values():
            feature = self._feature(key)
            if feature.get("dtype") not in ("video", "image"):
                raise UserError(f"{where}: {key} is {feature.get('dtype')}, neither video nor image")
            told = feature.get("info") if isinstance(feature.get("info"), dict) else {}
            if told.get("video.is_depth_map") or told.get("is_depth_map"):
                raise UserError(f"{where}: {key} is a depth map, no picture")
        if self.fps != frequency:
            raise UserError(f"{where}: was recorded at {self.fps} steps a second; set data.frequency: {self.fps}")

    def _feature(self, key: str) -> dict[str, Any]:
        found = self.features.get(key)
        if not isinstance(found, dict):
            known = ", ".join(name for name, feature in self.features.items() if isinstance(feature, dict))
            raise UserError(f"{self.root / INFO}: has no feature {key}, which data.robot names; there are {known}")
        return found

    def _path(self, template: str, **values: Any) -> Path:
        """A file whose name follows from a template of info.json."""
        text = self.info.get(template)
        fields = {match[1] for match in FIELD.finditer(text)} if isinstance(text, str) else set()
        if not fields or not fields <= set(values) or {*"{}"} & {*FIELD.sub("", text)}:
            raise UserError(f"{self.root / INFO}: {template} = {text!r} names no file")
        path = self.root / text.format(**values)
        if leads_out(self.root, path):
            raise UserError(f"{self.root / INFO}: {template} leads out of the folder")
        return path

    def _listed_v2(self) -> dict[int, Listed]:
        chunk = int(self.info.get("chunks_size", 1000))
        found = {}
        for row in _json_lines(self.root / "meta/episodes.jsonl"):
            number = int(row[EPISODE])
            values = {"episode_chunk": number // chunk, EPISODE: number}
            videos = {key: Place(self._path("video_path", **values, video_key=key), 0.0) for key in self.videos}
            found[number] = Listed(int(row["length"]), tuple(row.get("tasks", ())), self._path("data_path", **values), videos)
        return found

    def _listed_v3(self) -> dict[int, Listed]:
        found = {}
        for path in sorted((self.root / "meta/episodes").rglob("*.parquet")):
            names = [name for name in _schema(path) if not name.startswith("stats/")]
            for row in _table(path, names).to_pylist():
                found[int(row[EPISODE])] = self._row_v3(row)
        if not found:
            raise UserError(f"{self.root / 'meta/episodes'}: holds no table of episodes")
        return found

    def _row_v3(self, row: Table[str, Any]) -> Listed:
        def of(prefix: str) -> dict[str, int]:
            return {name: int(row[f"{prefix}/{name}"]) for name in ("chunk_index", "file_index")}

        videos = {
            key: Place(
                self._path("video_path", **of(f"videos/{key}"), video_key=key), float(row[f"videos/{key}/from_timestamp"])
            )
            for key in self.videos
        }
        return Listed(int(row["length"]), tuple(row["tasks"]), self._path("data_path", **of("data")), videos)


class LeRobotRecording:
    """An open episode; what is asked for is read then. As :class:`ablation.systems.rdt.data.episode.Recording`."""

    def __init__(self, listed: Listed, number: int, robot: Robot):
        self.listed, self.number, self.robot = listed, number, robot
        self._columns: dict[str, Any] = {}
        self._videos: dict[str, Video] = {}

    def states(self, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Positions of the steps ``start`` to ``stop`` [N, J]."""
        return self._numbers(self.robot.state.key)[start:stop]

    def actions(self, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Targets of the steps ``start`` to ``stop`` [N, K]; fewer at the end."""
        return self._numbers(self.robot.action.key)[start:stop]

    def image(self, view: View, step: int, jpeg: str) -> NDArray[np.uint8]:
        """What a camera saw at ``step`` [H, W, 3], RGB; ``jpeg`` is of other recorders."""
        key = self.robot.cameras[view]
        if key not in self.listed.videos:
            stored = self.column(key)[step].as_py()
            return np.asarray(read_rgb(BytesIO(stored["bytes"]), upright=True, background=None))
        if key not in self._videos:
            self._videos[key] = Video(self.listed.videos[key].file)
        return self._videos[key].at(self.listed.videos[key].start + self.column(TIME)[step].as_py())

    def files(self) -> list[Path]:
        """Those that hold the episode."""
        seen = (self.listed.videos[key].file for key in self.robot.cameras.values() if key in self.listed.videos)
        return [self.listed.data, *seen]

    def column(self, name: str) -> Any:
        """A column of the episode's rows."""
        if name not in self._columns:
            table = _table(self.listed.data, [name], self.number)
            self._columns[name] = table.column(name).combine_chunks()
        return self._columns[name]

    def close(self) -> None:
        """Give the files back."""
        for video in self._videos.values():
            video.close()

    def _numbers(self, key: str) -> NDArray[np.float64]:
        return np.array(self.column(key).to_pylist(), dtype=np.float64)


@contextmanager
def lerobot_recording(path: Path, robot: Robot) -> Iterator[LeRobotRecording]:
    """The episode ``ROOT/episode_000000``, which is no file, open as long as needed."""
    number = number_of(path)
    opened = LeRobotRecording(data_set(path.parent).episodes[number], number, robot)
    try:
        yield opened
    finally:
        opened.close()


@cache
def data_set(root: Path) -> DataSet:
    """The data set in ``root``, whose meta data are read once."""
    return DataSet(root)


def number_of(path: Path) -> int:
    """Of an episode."""
    return int(NAME.fullmatch(path.name)[1])


def paths_of(root: Path) -> list[Path]:
    """A path for each episode, ``ROOT/episode_000000``, in order."""
    return [root / f"episode_{number:06d}" for number in sorted(data_set(root).episodes)]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_text(path, LARGEST).splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: is no JSON ({error})") from None


def _schema(path: Path) -> list[str]:
    return _read(path, lambda: pq.read_schema(path).names)


def _table(path: Path, columns: list[str], episode: int | None = None) -> Any:
    filters = None if episode is None else [(EPISODE, "=", episode)]
    return _read(path, lambda: pq.read_table(path, columns=columns, filters=filters))


def _read(path: Path, read: Any) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        return read()
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); is it truncated?") from None
