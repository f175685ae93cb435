"""Frames of a video by their time."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ablation.errors import UserError

AHEAD = 2.0  # seconds that are decoded through rather than sought


class Video:
    """The first video stream of a file. Frames asked for in their order are decoded once, one after the other."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        self.path = path
        self._container = av.open(str(path))
        if not self._container.streams.video:
            raise ValueError(f"{path}: holds no video")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "NONE"
        self._tolerance = 0.5 / float(self._stream.average_rate)
        self._frames: Iterator[av.VideoFrame] | None = None
        self._latest: av.VideoFrame | None = None

    def at(self, seconds: float) -> NDArray[np.uint8]:
        """The frame shown at that time [H, W, 3], RGB. ValueError where there is none."""
        if self._latest is None or not self._latest.time <= seconds + self._tolerance <= self._latest.time + AHEAD:
            self._seek(seconds)
        while self._latest is None or self._latest.time < seconds - self._tolerance:
            self._latest = next(self._frames, None)
            if self._latest is None:
                raise ValueError(f"{self.path}: ends before {seconds:.3f} s")
        if abs(self._latest.time - seconds) > self._tolerance:
            raise ValueError(f"{self.path}: has no frame at {seconds:.3f} s; the next is at {self._latest.time:.3f} s")
        return self._latest.to_ndarray(format="rgb24")

    def _seek(self, seconds: float) -> None:
        """To the last whole picture before: only from there can one decode."""
        self._container.seek(max(0, round((seconds - self._tolerance) / self._stream.time_base)), stream=self._stream)
        self._frames, self._latest = self._container.decode(self._stream), None

    def close(self) -> None:
        """Give the file back."""
        self._container.close()
