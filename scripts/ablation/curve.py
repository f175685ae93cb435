"""A run's history short enough to keep beside its numbers in one table."""

from pathlib import Path

import numpy as np
from pyarrow import csv

POINTS = 200
COLUMNS = ("step", "loss", "grad_norm")


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Loss and gradient norm by step, from ``history.csv``: every step, or the means of at most 200 equal stretches of them.

    A stretch is named by its last step. Nothing where there is no history.
    """
    if not path.is_file() or not path.stat().st_size:
        return {}
    table = csv.read_csv(path, csv.ReadOptions(use_threads=False))  # small, and one of many
    found = {name: table[name].to_numpy().astype(float) for name in COLUMNS if name in table.column_names}
    stretch = -(-len(table) // POINTS)
    if stretch < 2:
        return found
    starts = np.arange(0, len(table), stretch)
    lengths = np.diff([*starts, len(table)])
    short = {name: np.add.reduceat(values, starts) / lengths for name, values in found.items()}
    return {**short, "step": found["step"][starts + lengths - 1]}
