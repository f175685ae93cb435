"""Tables of the report as rows of ready text."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ablation.report.results import MEMORY, STEP_TIME, CellResult, Results
from ablation.report.statistics import Estimate, estimate
from ablation.settings import Metric

NONE = "–"
RAN = ("completed", "diverged", "oom", "failed")


def shown(found: Estimate | None, digits: int) -> str:
    """``0.512 ± 0.023``, without the interval where there is only one value."""
    if found is None:
        return NONE
    interval = "" if found.half_width is None else f" ± {found.half_width:.{digits}f}"
    return f"{found.mean:.{digits}f}{interval}"


def main_table(results: Results) -> dict[str, Any]:
    """A row a cell: what it trains, what it costs, what it reaches. The pretrained model stands first."""
    metrics = [m for m in results.metrics if f"metric.{m.name}" in results.runs]
    names = ["strategy" if axis == "strategy" else axis.rsplit(".", 1)[-1] for axis in results.varying]
    head = [
        *names,
        "trained",
        "share",
        "memory, GiB",
        "step, s",
        "final loss",
        *(m.label + (f", {m.unit}" if m.unit else "") + (" ↓" if m.lower_is_better else " ↑") for m in metrics),
        "runs",
    ]
    before = ["pretrained", *[""] * (len(names) - 1), "", "", "", "", "", *(_before(results, m) for m in metrics), ""]
    best = {metric.name: _best_mean(results, metric) for metric in metrics}
    rows = [{"cells": before, "kind": "before"}]
    for cell in results.cells:
        rows.append({"cells": _row(results, cell, metrics, best), "kind": "baseline" if results.is_baseline(cell) else ""})
    return {"head": head, "rows": rows, "text_columns": len(names)}


def _row(results: Results, cell: CellResult, metrics: Sequence[Metric], best: dict[str, float | None]) -> list[Any]:
    trained, total = (cell.runs[name].dropna() for name in ("trainable_params", "total_params"))
    axes = [NONE if value is None else str(value) for value in cell.axes.values()]
    values = [cell.estimate(f"metric.{metric.name}") for metric in metrics]
    outcomes = cell.outcomes
    runs = (
        str(sum(outcomes.values()))
        if set(outcomes) == {"completed"}
        else ", ".join(f"{n} {name}" for name, n in outcomes.items())
    )
    return [
        *axes,
        f"{int(trained.iloc[0]):,}",
        f"{trained.iloc[0] / total.iloc[0]:.2%}",
        shown(cell.estimate(MEMORY), 3),
        shown(cell.estimate(STEP_TIME), 3),
        shown(cell.estimate("final_loss"), 3),
        *(
            {"text": shown(value, metric.digits), "best": value is not None and value.mean == best[metric.name]}
            for metric, value in zip(metrics, values, strict=True)
        ),
        runs,
    ]


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
            row["outcome"],
            _number(row.get(f"metric.{metric.name}"), metric.digits),
            _number(row.get(MEMORY), 3),
            _number(row.get(STEP_TIME), 3),
            _remark(row),
        ]
        rows.append({"cells": cells, "kind": "" if row["outcome"] == "completed" else "bad"})
    return {"head": head, "rows": rows, "text_columns": 2}


def _remark(row: dict[str, Any]) -> str:
    """What there is to say of a run: its diagnosis, its error, or why it was not submitted."""
    names = ["diagnosis", "oom"] if row["outcome"] in RAN else ["reason"]
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name]), "")


def _number(value: Any, digits: int) -> str:
    return NONE if value is None or pd.isna(value) else f"{value:.{digits}f}"
