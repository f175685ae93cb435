"""Ways to one effective batch (batch x accumulation x GPUs): whether they train alike, and what each costs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablation.report.results import MEMORY, THROUGHPUT, CellResult, Results
from ablation.report.statistics import Estimate
from ablation.report.tables import NONE, axis_names, axis_values, no_memory, number, shown

SPLIT = ("batch", "accumulation", "gpus")


def splits_table(results: Results, histories: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    """A row a cell that shares its effective batch with others of the study, next to them; None where there is none.

    Losses and gradients are compared step by step and seed by seed with those of the first cell of its kind.
    ``histories``: by run, a row a step.
    """
    rows = []
    for cells in _alike(results):
        rows += [_row(results, cell, cells[0], histories) for cell in cells]
    head = [
        *("batch × accum. × GPUs", "effective batch"),
        *(name for axis, name in zip(results.varying, axis_names(results), strict=True) if axis not in SPLIT),
        *("final loss", "loss differs by", "gradient norm by", "samples/s", "speed", "memory, GiB", "predicted", "fits?"),
    ]
    return {"head": head, "rows": rows, "text_columns": 1} if rows else None


def largest_difference(one: pd.DataFrame, other: pd.DataFrame, column: str) -> float | None:
    """The largest relative difference of ``column`` at any step that both histories have; None without one."""
    both = one.merge(other, on="step", suffixes=("", "_other"))
    apart = (both[column] - both[f"{column}_other"]).abs() / both[f"{column}_other"].abs()
    return None if both.empty else float(apart.max())


def _alike(results: Results) -> list[list[CellResult]]:
    """Cells that differ in their split alone, two or more together."""
    groups: dict[tuple, list[CellResult]] = {}
    for cell in results.cells:
        first = cell.runs.iloc[0]
        rest = tuple(str(first[axis]) for axis in results.axes if axis not in SPLIT)
        groups.setdefault((first["effective_batch"], *rest), []).append(cell)
    return [cells for cells in groups.values() if len(cells) > 1]


def _row(results: Results, cell: CellResult, first: CellResult, histories: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    axes, rest = cell.runs.iloc[0], [v for a, v in zip(results.varying, axis_values(cell), strict=True) if a not in SPLIT]
    speed, reference = cell.estimate(THROUGHPUT), first.estimate(THROUGHPUT)
    return {
        "cells": [
            " × ".join(str(int(axes[axis])) for axis in SPLIT),
            str(int(axes["effective_batch"])),
            *rest,
            no_memory(cell) or _short(cell.estimate("final_loss")),
            *("" if cell is first else _apart(cell, first, histories, column) for column in ("loss", "grad_norm")),
            shown(speed, 2),
            f"{speed.mean / reference.mean:.2f}" if speed and reference else NONE,
            shown(cell.estimate(MEMORY), 3),
            number(axes.get("predicted_gib"), 2),
            axes.get("memory_verdict") or NONE,
        ],
        "kind": "",
    }


def _short(found: Estimate | None) -> str:
    return NONE if found is None else f"{found.mean:.4g}"


def _apart(cell: CellResult, first: CellResult, histories: Mapping[str, pd.DataFrame], column: str) -> str:
    """The largest difference over all seeds, such as ``3e-07``."""
    pairs = cell.runs.merge(first.runs, on="seed", suffixes=("", "_first"))
    both = [(a, b) for a, b in zip(pairs["run"], pairs["run_first"], strict=True) if a in histories and b in histories]
    found = [largest_difference(histories[a], histories[b], column) for a, b in both]
    known = [value for value in found if value is not None]
    return f"{max(known):.0e}" if known else NONE
