"""Each cell against the baseline, in every metric."""

from ablation.report.baselines import counterpart, described
from ablation.report.comparisons import (
    EQUAL,
    NO_PAIR,
    NO_SPREAD,
    ONE_PAIR,
    ONE_SEED,
    Difference,
    differences,
)
from ablation.report.numbers import difference, enough_digits, p_value
from ablation.report.results import Results
from ablation.report.samples import METRIC, by_item
from ablation.report.table import Cell, Column, Row, Table
from ablation.report.tables.cells import axis_cells, axis_columns, metric_column
from ablation.settings import Metric

MOST_ROWS = 300  # above, the table is of the most important metric alone


def difference_table(results: Results) -> Table | None:
    """A row a metric and cell but its baseline: the paired difference and its verdict; None where there is no baseline."""
    if not results.baselines or len(results.cells) < 2:
        return None
    several = len(results.baselines) > 1
    known = [metric for metric in results.metrics if METRIC + metric.name in results.runs] or [results.primary]
    metrics = known if len(known) * len(results.cells) <= MOST_ROWS else known[:1]
    found = {metric: differences(results, metric) for metric in metrics}
    columns = [
        Column("metric", "metric", numeric=False),
        *axis_columns(results),
        *([Column("baseline", "baseline", numeric=False)] if several else []),
        Column("difference", "difference"),
        Column("pairs", "pairs"),
        Column("p_holm", "p"),
        Column("verdict", "verdict", numeric=False),
    ]
    rows = [row for metric, many in found.items() for row in _rows(results, metric, many)]
    title = f"Differences to the baseline ({', '.join(filter(None, (described(results), counterpart(results))))})"
    return Table("differences", title, _caption(results, found, known), columns, rows)


def _rows(results: Results, metric: Metric, found: list[Difference]) -> list[Row]:
    digits = enough_digits([number for one in found for number in (one.mean, one.half_width)], metric.digits)
    several = len(results.baselines) > 1
    rows = []
    for one in found:
        cell, base = results.cells[one.cell], results.cells[one.baseline]
        number = Cell(difference(one.mean, one.half_width, digits), one.mean, one.half_width, runs=(*cell.ids, *base.ids))
        named = [Cell(base.label)] if several else []
        judged = [Cell(str(one.pairs), one.pairs), Cell(p_value(one.p), one.p), Cell(one.verdict)]
        rows.append(Row([Cell(metric_column(metric).head), *axis_cells(cell), *named, number, *judged]))
    return rows


def _caption(results: Results, found: dict[Metric, list[Difference]], known: list[Metric]) -> str:
    """What the numbers are and how far they carry; nothing that is not in the table."""
    everything = [one for many in found.values() for one in many]
    said = [f"Cell minus baseline, mean ± 95 % t interval, {_pairing(results, found)}."]
    if any(one.p is not None for one in everything):
        said.append("p: paired t test, Holm-corrected over the cells within a metric; the interval is not corrected.")
    if any(one.p is not None and 1 < one.seeds < one.pairs for one in everything):
        said.append(
            "Pairs share the same items, and those of a seed one model: the interval is the wider of those over pairs and"
            " over the means of the seeds, p the larger."
        )
    if any(one.verdict.endswith(ONE_SEED) for one in everything):
        said.append("One seed: it holds for these trained weights over the items, not for training again.")
    if any(one.verdict in (EQUAL, NO_SPREAD) for one in everything):
        said.append("Where all pairs differ by the same, there is no interval.")
    if any(one.verdict == NO_PAIR for one in everything):
        said.append("No pair: cell and baseline have no seed with a value in common.")
    if any(one.verdict == ONE_PAIR for one in everything):
        said.append("One pair gives no interval and no verdict.")
    if len(known) > len(found):
        said.append(f"The table is of the {results.primary.label} alone, for its length.")
    return " ".join(said)


def _pairing(results: Results, found: dict[Metric, list[Difference]]) -> str:
    """``paired by item and seed (12 items, 3 seeds); Fréchet distance by seed alone``."""
    items = {metric: by_item(results, METRIC + metric.name).items for metric in found}
    most = max(items.values())
    seeds = max(one.seeds for many in found.values() for one in many)
    counts = f" ({_many(most, 'item')}, {_many(seeds, 'seed')})" if seeds else ""
    if not most:
        return "paired by seed"
    alone = ", ".join(metric.label for metric, count in items.items() if not count)
    return f"paired by item and seed{counts}" + (f"; {alone} by seed alone" if alone else "")


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"
