"""The memory ladder: each technique added to those before, with what it saves."""

from pathlib import Path

import pandas as pd

from ablation.report.results import MEMORY, Results, in_words
from ablation.report.statistics import estimate
from ablation.report.table import NONE, Cell, Column, Row, Table, texts
from ablation.report.tables.cells import memory_digits, parameters, plain_number, shown

ALLOCATED = "predicted_allocated_gib"


def ladder_table(results: Results, folder: Path) -> Table | None:
    """A row a technique, from ``ladder.csv`` beside the plan; None where there is none."""
    path = folder / "ladder.csv"
    if not path.is_file():
        return None
    rungs = pd.read_csv(path, keep_default_na=False, na_values={ALLOCATED: ""}, dtype={"technique": str, "runs": str})
    if ALLOCATED not in rungs or rungs[ALLOCATED].isna().all():
        return None
    digits = memory_digits(rungs[ALLOCATED].max())
    measured = [_measured(results, str(ids).split(), digits) for ids in rungs["runs"]]
    with_measured = any(cell.runs for cell in measured)
    columns = [
        Column("technique", "technique", numeric=False),
        Column("trainable_params", "trained"),
        Column("allocated", "memory", "GiB", "lower"),
        Column("saved", "saves", "GiB", "higher"),
        Column("left", "of the first"),
        *([Column("measured", "measured", "GiB")] if with_measured else []),
        Column("verdict", f"fits {results.study.hardware}?", numeric=False),
    ]
    rows = _rows(rungs, measured if with_measured else None, len(columns), digits)
    return Table("ladder", "Memory, one technique after another", _caption(rungs, with_measured), columns, rows)


def _rows(rungs: pd.DataFrame, measured: list[Cell] | None, columns: int, digits: int) -> list[Row]:
    rows, first, last = [], rungs[ALLOCATED].dropna().iloc[0], None
    for i, rung in enumerate(rungs.to_dict("records")):
        needed = rung[ALLOCATED]
        if pd.isna(needed):
            rows.append(Row(texts(f"{rung['technique']} (cannot be predicted)", *[None] * (columns - 1))))
            continue
        saved = None if last is None else round(last - needed, 4)  # the digits that the plan has
        cells = [
            Cell(rung["technique"]),
            parameters(float(rung["trainable_params"])),
            plain_number(needed, digits),
            Cell(NONE) if saved is None else Cell(_signed(saved, digits), saved),
            Cell(f"{needed / first:.0%}", needed / first),
            *([measured[i]] if measured else []),
            Cell(in_words(rung["memory_verdict"])),
        ]
        rows.append(Row(cells))
        last = needed
    return rows


def _signed(value: float, digits: int) -> str:
    """A saving; what costs memory is negative, and what changes nothing is zero without a sign."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.removeprefix("-")


def _measured(results: Results, ids: list[str], digits: int) -> Cell:
    """What runs that took the very step of a rung measured; a CPU's peak is of other tensors."""
    runs = results.runs
    if not {MEMORY, "memory.kind"} <= set(runs):
        return Cell(NONE)
    known = runs[runs["run"].isin(ids) & (runs["outcome"] == "completed") & (runs["memory.kind"] == "cuda")]
    found = estimate(known[MEMORY].tolist())
    return Cell(NONE) if found is None else Cell(shown(found, digits), found.mean, found.half_width, runs=known["run"].tolist())


def _caption(rungs: pd.DataFrame, with_measured: bool) -> str:
    first = rungs.iloc[0]
    measured = " Measured: by runs of the study that took that very step on a CUDA device." if with_measured else ""
    zero = "+ ZeRO-2" in set(rungs["technique"])
    buckets = " ZeRO keeps buckets of 200 M elements, however small the network is." if zero else ""
    return (
        "Each row adds a technique to all rows above it. Memory: predicted peak of the tensors on one GPU in a step"
        f" of batch {first['batch']}, accumulation {first['accumulation']}. Fits: with what the allocator and CUDA take beside."
        " Saves: against the row above; a negative number costs memory."
        f"{measured}{buckets}"
    )
