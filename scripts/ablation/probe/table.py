"""Records of probes as rows beside the plan's predictions, and rows as text for a terminal."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablation.probe.prober import Record
from ablation.sweep import Run

Row = dict[str, Any]
PREDICTED = "predicted_"  # how the plan's columns of predictions begin


def read_plan(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a plan by their run."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def row_of(run: Run, record: Record, planned: dict[str, str]) -> Row:
    """A cell: its axes, what became of it, what was measured, what ``planned`` says of it and how far off that is."""
    measured = {"outcome": record["outcome"], "reason": _reason(record), **measurements(record)}
    predicted = {name: float(value) for name, value in planned.items() if name.startswith(PREDICTED) and _is_number(value)}
    return {**run.cell, **measured, "verdict": planned.get("verdict"), **predicted, **_errors(predicted, measured)}


def measurements(record: Record) -> Row:
    """What a record measured: GiB, seconds, samples/s. Nothing where it did not complete: peaks until then say little."""
    done = record if record.get("outcome") == "completed" else {}
    memory, time = done.get("memory", {}), done.get("time", {})
    return {
        "peak_allocated_gib": _rounded(memory.get("peak_allocated_gib")),
        "peak_reserved_gib": _rounded(memory.get("peak_reserved_gib")),
        "peak_phase": _peak_phase(memory),
        "step_s": _rounded(time.get("step_median_s")),
        "samples_per_s": _rounded(time.get("samples_per_s")),
        "device": record.get("device", {}).get("name"),
    }


def _reason(record: Record) -> str | None:
    """Why a cell failed or cannot run; when memory ran out."""
    if record["outcome"] == "oom":
        return f"{record['oom']['phase']}: {record['oom']['message']}"
    return record.get("reason")


def _peak_phase(memory: Record) -> str | None:
    phases = {name: peaks["allocated_gib"] for name, peaks in memory.get("phases", {}).items() if name != "load"}
    return max(phases, key=phases.__getitem__) if phases else None


def _errors(predicted: Row, measured: Row) -> Row:
    """Relative error of each prediction of a peak that was measured: predicted / measured - 1."""
    pairs = {name.removeprefix(PREDICTED): value for name, value in predicted.items()}
    known = {name: measured.get(f"peak_{name}") for name in pairs}
    return {f"error_{name.removesuffix('_gib')}": round(pairs[name] / peak - 1, 4) for name, peak in known.items() if peak}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rounded(value: float | None) -> float | None:
    """To six significant digits."""
    return None if value is None else float(f"{value:.6g}")


def text_table(name: str, what: str, rows: Sequence[Row], columns: dict[str, str]) -> str:
    """For a terminal: how many ``what`` ended how and on what, the varying axes with ``columns`` (key -> heading), reasons."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in Counter(row["outcome"] for row in rows).items())
    devices = ", ".join(sorted({row["device"] for row in rows if row["device"]}))
    head = f"{name}: {len(rows)} {what} ({outcomes}){f' on {devices}' if devices else ''}"
    reasons = Counter(f"{row['outcome']}: {row['reason']}" for row in rows if row["outcome"] in ("failed", "invalid"))
    return "\n".join([head, *_aligned(rows, {**_varying(rows), **columns}), *(f"  {n} {line}" for line, n in reasons.items())])


def _varying(rows: Sequence[Row]) -> dict[str, str]:
    """The axes that tell the rows apart, which are all columns before the outcome; the strategy in any case."""
    axes = list(dict.fromkeys(key for row in rows for key in list(row)[: list(row).index("outcome")]))
    varying = [axis for axis in axes if axis == "strategy" or len({row.get(axis) for row in rows}) > 1]
    return {axis: axis.rsplit(".", 1)[-1] for axis in varying}


def _aligned(rows: Sequence[Row], columns: dict[str, str]) -> list[str]:
    """Lines of the columns that hold anything."""
    shown = {key: heading for key, heading in columns.items() if any(row.get(key) is not None for row in rows)}
    lines = [list(shown.values()), *([_shown(key, row.get(key)) for key in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key.startswith("error_"):
        return f"{value:+.1%}"
    if key == "outcome":
        return "OOM" if value == "oom" else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
