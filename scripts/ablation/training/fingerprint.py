"""What a run's state belongs to: its settings, and the data and weights that it reads."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.canonical import short_hash
from ablation.seal import files_of, sealed
from ablation.sweep import Run

STATE_FORMAT = 5  # of a checkpoint's content


def state_fingerprint(run: Run, weights: Mapping[str, Path], data: Sequence[Path]) -> str:
    """A hash of all that decides the numbers of ``run``; of what is not sealed, names, sizes and times of change of files."""
    inputs = [sealed(path) or list(_files(path)) for path in (*weights.values(), *data)]
    return short_hash([STATE_FORMAT, run.training_view, inputs], 64)


def _files(path: Path) -> Iterator[list[Any]]:
    for file in [path] if path.is_file() else files_of(path):
        status = file.stat()
        yield [file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns]
