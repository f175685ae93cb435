"""How many samples a second each cell trains on."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure as Drawing

from ablation.report.baselines import counterpart, described
from ablation.report.figure import Figure
from ablation.report.figures.choice import best_cells, chosen, known, looks, names, ran_out, shown, without_memory
from ablation.report.figures.style import FONT, PAGE, drawing, row_height, row_name, styled
from ablation.report.results import THROUGHPUT, CellResult, Results
from ablation.report.statistics import Estimate

Row = tuple[CellResult, Estimate | None]


def throughput(results: Results) -> Figure | None:
    """A bar a cell, with its interval and, as a number, its relation to its baseline. None where nothing was timed."""
    rows = [(cell, known(cell, THROUGHPUT)) for cell in best_cells(results)]
    rows = [(cell, found) for cell, found in rows if found or without_memory(cell)]
    if not any(found for _, found in rows):
        return None
    related = any(_reference(results, cell) for cell, _ in rows)
    baseline = ", ".join(filter(None, (described(results), counterpart(results))))
    caption = (
        "Samples a second in training, from the median time of a step: mean over seeds, with 95 % t intervals where there are"
        " two or more (cut at zero)."
        + (f" Beside each bar: relative to the baseline ({baseline})." if related else "")
        + results.packed
        + chosen(results)
    )
    draw = partial(_draw, results, rows)
    return Figure("throughput", "Throughput", caption, _alt(rows), draw)


@styled()
def _draw(results: Results, rows: list[Row]) -> Drawing:
    marks = ["baseline: " if results.is_baseline(cell) else "" for cell, _ in rows]
    texts = [mark + name for name, mark in zip(names(results, [cell for cell, _ in rows]), marks, strict=True)]
    figure = drawing(PAGE, 0.75 + row_height(texts) * len(rows))
    axes, look, places = figure.subplots(), looks(results), np.arange(len(rows))
    longest = max(found.mean for _, found in rows if found)
    edge = max(min(found.mean + (found.half_width or 0), 1.6 * longest) for _, found in rows if found)
    for place, (cell, found) in zip(places, rows, strict=True):
        own = look[cell.strategy]
        if not found:
            axes.annotate(
                ran_out(cell), (0, place), (4, 0), textcoords="offset points", va="center", fontsize=FONT - 1, style="italic"
            )
            continue
        axes.barh(place, found.mean, 0.66, color=own.colour, hatch=own.hatch, edgecolor="white", linewidth=0)
        axes.barh(place, found.mean, 0.66, facecolor="none", edgecolor="0.2", linewidth=0.5)
        if found.half_width is not None:
            low = min(found.half_width, found.mean)
            axes.errorbar(found.mean, place, xerr=[[low], [found.half_width]], color="black", elinewidth=0.9, capsize=2)
        beside = _beside(found, _reference(results, cell))
        axes.annotate(beside, (1, place), (3, 0), xycoords=("axes fraction", "data"), va="center",
                      textcoords="offset points", fontsize=FONT - 0.7, annotation_clip=False)  # fmt: skip
    axes.set_yticks(places, [row_name(text, len(rows)) for text in texts])
    axes.set(xlim=(0, 1.04 * edge), ylim=(len(rows) - 0.4, -0.6), xlabel="throughput, samples/s", ylabel="cell")
    axes.grid(False, axis="y")
    return figure


def _reference(results: Results, cell: CellResult) -> float | None:
    """The throughput of the cell's baseline."""
    baseline = results.baseline_of(cell)
    found = known(baseline, THROUGHPUT) if baseline else None
    return found.mean if found else None


def _beside(found: Estimate, reference: float | None) -> str:
    value = f"{found.mean:.3g}" if found.mean < 100 else f"{found.mean:.0f}"
    return f"{value}  {found.mean / reference:.2f}×" if reference else value


def _alt(rows: list[Row]) -> str:
    known_rows = sorted(((found, cell) for cell, found in rows if found), key=lambda row: -row[0].mean)
    (fastest, first), (slowest, last) = known_rows[0], known_rows[-1]
    count = f"{len(known_rows)} cell{'s' * (len(known_rows) > 1)}"
    text = f"Throughput of {count}. Fastest: {first.label}, {shown(fastest, 2)} samples/s."
    text += f" Slowest: {last.label}, {shown(slowest, 2)} samples/s." if len(known_rows) > 1 else ""
    failed = [cell.label for cell, found in rows if not found]
    return text + (f" Out of memory: {'; '.join(failed)}." if failed else "")
