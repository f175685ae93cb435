"""The page of predicted against measured memory, from all records."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablation.vram.margin import MARGIN
from ablation.vram.records import Case, Errors, Record, counted, errors_of, on_gpus

INTRODUCTION = """# Predicted against measured memory

<!-- Generated from benchmarks/records by `make vram-table`; do not edit. -->

Peak memory that PyTorch reserves on a GPU, predicted without one, against what was measured. Nothing is fitted to these
measurements but the predictor's margin, {margin:.1%}: the error that 95 % of the predictions stay below, rounded up. A run
within the margin of the card's memory is planned as `tight`.

`make gpu-records` adds a record of your own GPU; `benchmarks/vram_peft.py` makes those of public runs.
"""


def page(records: Mapping[str, Record]) -> str:
    """The whole page: a summary with a line a record, then every record's cases."""
    total = errors_of(on_gpus(records.values()))
    rows = [(name, record["gpu"], *_numbers(errors_of(counted(record)))) for name, record in records.items()]
    rows += [("**all with a GPU**", "", *_numbers(total))]
    head = ("record", "GPU", "n", "median", "mean", "95th percentile", "maximum")
    parts = [
        INTRODUCTION.format(margin=MARGIN),
        "## Errors\n\nThe size of the error, in percent of what was measured.\n",
        _table(head, rows, right=2),
    ]
    return "\n".join([*parts, *(_section(name, record) for name, record in records.items())])


def _section(name: str, record: Record) -> str:
    rows = [_row(found) for found in record["cases"]]
    head = ("case", "predicted GiB", "measured GiB", "error", "outcome")
    lines = [
        f"\n## {name}\n",
        f"{record['gpu']}, {record['measures']} memory. {record['task']}.",
        f"Source: {record['source']}.\n",
    ]
    lines.append(_table(head, rows, right=1))
    if record.get("untraced"):
        lines += ["\nNot predicted, because their step cannot be traced:\n", *(f"- {line}" for line in record["untraced"]), ""]
    return "\n".join(lines)


def _row(found: Case) -> tuple[str, ...]:
    sizes = ["–" if size is None else f"{size:.3f}" for size in (found["predicted_gib"], found["measured_gib"])]
    error = "–" if found["error_percent"] is None else f"{found['error_percent']:+.2f} %"
    return found["name"], *sizes, error, _outcome(found)


def _outcome(found: Case) -> str:
    outcome = "OOM" if found["outcome"] == "oom" else found["outcome"]
    return f"{outcome}, emulated card" if found.get("emulated") else outcome


def _numbers(found: Errors | None) -> tuple[str, ...]:
    if found is None:
        return "0", "–", "–", "–", "–"
    return str(found.count), *(f"{value:.2f} %" for value in (found.median, found.mean, found.p95, found.maximum))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: int) -> str:
    """A Markdown table whose columns from ``right`` on are set flush right."""
    line = ["---" if number < right else "---:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, line, *rows)) + "\n"
