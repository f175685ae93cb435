"""Tables of the report as rows of ready text."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ablation.report.results import MEMORY, OOM, PREDICTED_OOM, STEP_TIME, THROUGHPUT, CellResult, Results, in_words
from ablation.report.statistics import Estimate, estimate
from ablation.settings import Metric

NONE = "–"
MEASURED_RESERVED = "memory.peak_reserved_gib"  # of a CUDA device alone
MARKS = {"refuted": "✗", "confirmed": "✓", "not comparable": "–"}  # verdicts on claims, in the order of the table
RAN = ("completed", "diverged", "oom", "failed")


def shown(found: Estimate | None, digits: int) -> str:
    """``0.512 ± 0.023``, without the interval where there is only one value."""
    if found is None:
        return NONE
    interval = "" if found.half_width is None else f" ± {found.half_width:.{digits}f}"
    return f"{found.mean:.{digits}f}{interval}"


def main_table(results: Results) -> dict[str, Any]:
    """A row a cell: every metric with its interval, and how its runs ended. The pretrained model stands first."""
    metrics = [m for m in results.metrics if f"metric.{m.name}" in results.runs] or [results.primary]
    axes = axis_names(results)
    units = [f", {m.unit}" if m.unit else "" for m in metrics]
    arrows = ["↓" if m.lower_is_better else "↑" for m in metrics]
    head = [*axes, *(f"{m.label}{u}\N{NO-BREAK SPACE}{a}" for m, u, a in zip(metrics, units, arrows, strict=True)), "runs"]
    best = {metric.name: _best_mean(results, metric) for metric in metrics}
    before = ["pretrained", *[""] * (len(axes) - 1), *(_before(results, m) for m in metrics), ""]
    rows = [{"cells": before, "kind": "before"}]
    for cell in results.cells:
        values = [(metric, cell.estimate(f"metric.{metric.name}")) for metric in metrics]
        cells = [
            {
                "text": no_memory(cell) or shown(value, metric.digits),
                "best": value is not None and value.mean == best[metric.name],
            }
            for metric, value in values
        ]
        rows.append({"cells": [*axis_values(cell), *cells, _ended(cell)], "kind": _kind(results, cell)})
    return {"head": head, "rows": rows, "text_columns": len(axes)}


def cost_table(results: Results) -> dict[str, Any]:
    """A row a cell: what it trains, and what that costs."""
    axes = axis_names(results)
    head = [*axes, "trained", "share", "memory, GiB", "step, s", "samples/s", "final loss"]
    rows = []
    for cell in results.cells:
        trained, total = (cell.runs[name].dropna() for name in ("trainable_params", "total_params"))
        sizes = [f"{int(trained.iloc[0]):,}", f"{trained.iloc[0] / total.iloc[0]:.2%}"]
        columns = (MEMORY, STEP_TIME, THROUGHPUT, "final_loss")
        costs = [no_memory(cell) or shown(cell.estimate(column), 3) for column in columns]
        costs[0] += _some_without_memory(cell)
        rows.append({"cells": [*axis_values(cell), *sizes, *costs], "kind": _kind(results, cell)})
    return {"head": head, "rows": rows, "text_columns": len(axes)}


def memory_table(results: Results) -> dict[str, Any] | None:
    """A row a cell: predicted memory beside what was measured; None for plans without predictions."""
    if "predicted_gib" not in results.runs:
        return None
    head = [*axis_names(results), "needs, GiB", "fits?", "predicted reserved", "measured reserved", "error"]
    rows = []
    for cell in results.cells:
        first = cell.runs.iloc[0]
        predicted, measured = (cell.estimate(column) for column in ("predicted_reserved_gib", MEASURED_RESERVED))
        error = f"{predicted.mean / measured.mean - 1:+.1%}" if predicted and measured else NONE
        needs = [number(first["predicted_gib"], 2), first.get("memory_verdict") or NONE]
        held = [number(first["predicted_reserved_gib"], 2), shown(measured, 2), error]
        rows.append({"cells": [*axis_values(cell), *needs, *held], "kind": _kind(results, cell)})
    return {"head": head, "rows": rows, "text_columns": len(results.varying)}


def axis_names(results: Results) -> list[str]:
    """The axes that vary, as heads of columns."""
    return [axis.rsplit(".", 1)[-1] for axis in results.varying]


def axis_values(cell: CellResult) -> list[str]:
    """A cell's values of the axes that vary."""
    return [NONE if value is None else str(value) for value in cell.axes.values()]


def _kind(results: Results, cell: CellResult) -> str:
    return "baseline" if results.is_baseline(cell) else ""


def no_memory(cell: CellResult) -> str:
    """What stands in place of the numbers of a cell none of whose runs had memory enough: ``OOM``; else nothing."""
    if cell.out_of_memory < len(cell.runs):
        return ""
    return in_words(OOM if OOM in cell.outcomes else PREDICTED_OOM)


def _some_without_memory(cell: CellResult) -> str:
    """`` (1 of 3 OOM)``, where the numbers are those of the other runs; else nothing."""
    return f" ({cell.out_of_memory} of {len(cell.runs)} OOM)" if 0 < cell.out_of_memory < len(cell.runs) else ""


def _ended(cell: CellResult) -> str:
    """``3``, or ``2 completed, 1 OOM`` where not all runs completed."""
    if set(cell.outcomes) == {"completed"}:
        return str(len(cell.runs))
    return ", ".join(f"{count} {in_words(outcome)}" for outcome, count in cell.outcomes.items())


def _before(results: Results, metric: Metric) -> str:
    value = results.before(metric.name)
    return NONE if value is None else f"{value:.{metric.digits}f}"


def _best_mean(results: Results, metric: Metric) -> float | None:
    means = [found.mean for cell in results.cells if (found := cell.estimate(f"metric.{metric.name}"))]
    return (min(means) if metric.lower_is_better else max(means)) if means else None


def difference(results: Results, cell: CellResult, baseline: CellResult) -> Estimate | None:
    """``cell`` minus ``baseline`` in the primary metric, paired by seed."""
    column = f"metric.{results.primary.name}"
    if column not in results.runs:
        return None
    pairs = cell.runs.merge(baseline.runs, on="seed", suffixes=("", "_base"))
    return estimate((pairs[column] - pairs[f"{column}_base"]).tolist())


def item_table(results: Results, items: pd.DataFrame) -> dict[str, Any]:
    """A row a held-out item: the primary metric before, and after for each strategy (mean over its runs)."""
    digits = results.primary.digits
    strategies = list(dict.fromkeys(items["strategy"]))
    rows = []
    for item, frame in items.groupby("item", sort=False):
        means = frame.groupby("strategy")["value"].mean()
        after = [f"{means[name]:.{digits}f}" if name in means else NONE for name in strategies]
        rows.append({"cells": [item, f"{frame['before'].mean():.{digits}f}", *after], "kind": ""})
    return {"head": ["held-out item", "before", *strategies], "rows": rows, "text_columns": 1}


def claim_table(claims: Sequence[dict[str, str]]) -> dict[str, Any]:
    """A row a published claim, the refuted ones first: what was said, what is ours, and the verdict.

    ``source``: where all of them are from; where there are several, they are a column.
    """
    sources = {row["source"] for row in claims}
    head = ["verdict", "published", "claimed", "ours", "basis", "remarks", *(["source"] if len(sources) > 1 else [])]
    rows = []
    for row in sorted(claims, key=lambda row: list(MARKS).index(row["verdict"])):
        numbers = [row[name] or NONE for name in ("claimed", "ours", "basis")]
        cells = [f"{MARKS[row['verdict']]} {row['verdict']}", row["says"], *numbers, row["reason"], row["source"]]
        kind = {"refuted": "bad", "not comparable": "before"}.get(row["verdict"], "")
        rows.append({"cells": cells[: len(head)], "kind": kind})
    return {"head": head, "rows": rows, "text_columns": len(head), "source": sources.pop() if len(sources) == 1 else None}


def run_table(results: Results) -> dict[str, Any]:
    """A row a run, with its outcome and a link to its folder."""
    metric = results.primary
    head = [
        "run",
        "outcome",
        f"{metric.label}{', ' + metric.unit if metric.unit else ''}",
        "memory, GiB",
        "step, s",
        "remarks",
    ]
    rows = []
    for row in results.runs.to_dict("records"):
        cells = [
            {"text": row["run"], "link": f"runs/{row['run']}/"},
            in_words(row["outcome"]),
            number(row.get(f"metric.{metric.name}"), metric.digits),
            NONE if row["outcome"] == OOM else number(row.get(MEMORY), 3),
            number(row.get(STEP_TIME), 3),
            _remark(row),
        ]
        rows.append({"cells": cells, "kind": "" if row["outcome"] == "completed" else "bad"})
    return {"head": head, "rows": rows, "text_columns": 2}


def _remark(row: dict[str, Any]) -> str:
    """What there is to say of a run: where its memory ended, its diagnosis, or why it was not submitted."""
    if row["outcome"] == OOM:
        return out_of_memory(row)
    found = row.get("diagnosis" if row["outcome"] in RAN else "reason")
    return found if isinstance(found, str) else ""


def out_of_memory(row: dict[str, Any]) -> str:
    """Where the memory of a run ended, from its ``oom.*``; sizes that are not known are left out."""
    step = row.get("oom.step")
    where = row["oom.phase"] if pd.isna(step) else f"{row['oom.phase']} of step {int(step)}"
    known = {name: row.get(f"oom.{name}_gib") for name in ("requested", "allocated", "reserved")}
    asked = "" if pd.isna(known["requested"]) else f"asked for {_gib(known['requested'])} GiB"
    held = ", ".join(f"{_gib(known[name])} {name}" for name in ("allocated", "reserved") if not pd.isna(known[name]))
    numbers = " with ".join(text for text in (asked, held) if text)
    emulated = f" (emulated {row['memory.card']})" if row["oom.emulated"] else ""
    return f"out of memory in {where}: {numbers} of {_gib(row['oom.budget_gib'])} GiB{emulated}"


def _gib(value: float) -> str:
    """Two decimals, or for what is small as many as tell."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def number(value: Any, digits: int) -> str:
    """A number of a table of runs; a dash where there is none."""
    return NONE if value is None or pd.isna(value) else f"{value:.{digits}f}"
