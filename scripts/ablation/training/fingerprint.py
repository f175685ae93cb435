"""What a run's state belongs to: its settings, and the content of the data and weights that it reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.canonical import short_hash
from ablation.manifest import hashes_of
from ablation.seal import sealed
from ablation.sweep import Run

STATE_FORMAT = 7  # of a checkpoint's content, and of how it is gone on with: 7 has the learning rates of the releases


def state_fingerprint(run: Run, weights: Mapping[str, Path], data: Sequence[Path], known: Path | None = None) -> str:
    """A hash of all that decides the numbers of ``run``. ``known``: a folder that remembers the hashes of large files.

    Files count by their content: a copy, a download or a ``touch`` changes nothing.
    """
    of_weights: dict[str, Any] = {name: hashes_of(path, known) for name, path in weights.items()}
    of_data = [sealed(path) or hashes_of(path, known) for path in data]
    return short_hash([STATE_FORMAT, run.training_view, of_weights, of_data], 64)
