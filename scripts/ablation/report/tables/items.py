"""The held-out items one by one."""

from ablation.report.results import Results
from ablation.report.table import Cell, Column, Row, Table
from ablation.report.tables.cells import plain_number
from ablation.settings import Metric


def item_table(results: Results) -> Table | None:
    """A row an item: a metric before training, and after for each strategy; None where no run has items."""
    items, metric = results.items, item_metric(results)
    if metric is None:
        return None
    items = items[items[metric.name].notna()]
    strategies = list(dict.fromkeys(items["strategy"]))
    better = "lower" if metric.lower_is_better else "higher"
    columns = [
        Column("item", "held-out item", numeric=False),
        Column("before", "before", metric.unit, better),
        *(Column(name, name, metric.unit, better) for name in strategies),
    ]
    before = f"before.{metric.name}"
    rows = []
    for item, frame in items.groupby("item", sort=False):
        known = frame[before].dropna() if before in frame else frame[metric.name].iloc[:0]
        cells = [plain_number(known.mean() if len(known) else None, metric.digits, frame["run"].tolist())]
        for name in strategies:
            of_strategy = frame[frame["strategy"] == name]
            mean = of_strategy[metric.name].mean() if len(of_strategy) else None
            cells.append(plain_number(mean, metric.digits, of_strategy["run"].tolist()))
        rows.append(Row([Cell(str(item)), *cells]))
    caption = f"{_named(metric)} of each held-out item, before training and after: the mean over all runs of a strategy."
    return Table("items", "Held-out items", caption, columns, rows)


def item_metric(results: Results) -> Metric | None:
    """The most important metric that single items have."""
    return next((m for m in results.metrics if m.name in results.items and results.items[m.name].notna().any()), None)


def _named(metric: Metric) -> str:
    return f"{metric.label[:1].upper()}{metric.label[1:]}{f' in {metric.unit}' if metric.unit else ''}"
