"""Quality along an axis of the sweep: rank, batch, accumulation, and others that are numbers."""

import math
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation

from ablation.report.figure import Figure
from ablation.report.figures.choice import (
    best_of_each_strategy,
    direction,
    known,
    looks,
    metric_column,
    metric_label,
    shown,
)
from ablation.report.figures.style import COLUMN, OTHER, PAGE, Look, above, drawing, plain, plain_numbers, styled, window
from ablation.report.results import CellResult, Results
from ablation.report.statistics import Estimate

LABELS = {
    "rank": "rank",
    "batch": "batch, samples a GPU",
    "accumulation": "accumulation, batches a step",
    "gpus": "GPUs",
}
PANELS, TICKS, MANY = 6, 8, 16
Line = list[tuple[float, CellResult, Estimate]]


@dataclass(frozen=True)
class Panel:
    """One axis of the sweep, and a line for each strategy that has it."""

    axis: str
    also: tuple[str, ...]
    """Axes that change with it, and so have no panel of their own."""
    lines: dict[str, Line]
    level: dict[str, Estimate]
    """Strategies that do not have the axis."""


def axis_curves(results: Results) -> Figure | None:
    """The primary metric against each ordered axis that varies; None where none does."""
    panels = _panels(results)
    if not panels:
        return None
    caption = (
        f"{results.primary.label} along each axis, a line a strategy, with 95 % t intervals over seeds where there are two or"
        f" more; {direction(results.primary)} The other axes are as in the strategy's best cell. Lines without markers:"
        " strategies that do not have the axis."
        + "".join(f" {_named(panel.axis)} changes together with {_together(panel)}." for panel in panels if panel.also)
    )
    return Figure("axis-curves", "Quality along the axes", caption, _alt(results, panels), partial(_draw, results, panels))


@styled()
def _draw(results: Results, panels: list[Panel]) -> Drawing:
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = drawing(COLUMN if len(panels) == 1 else PAGE, 0.45 + 2.05 * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    look, handles = looks(results), {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        for i, (strategy, line) in enumerate(panel.lines.items()):
            handles[strategy] = _line(axes, look[strategy], line, i - (len(panel.lines) - 1) / 2)
        for strategy, found in panel.level.items():
            handle = axes.axhline(found.mean, color=look[strategy].colour, ls=look[strategy].line, lw=1)
            handles.setdefault(strategy, handle)
        _scale(axes, panel)
        axes.set_ylabel(metric_label(results.primary) if axes in grid[:, 0] else "")
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    _height(grid[0, 0], panels, results.primary.digits)
    order = [strategy for strategy in look if strategy in handles]
    above(figure, [handles[strategy] for strategy in order], [plain(strategy, 24) for strategy in order])
    return figure


def _line(axes: Axes, look: Look, line: Line, place: float):
    """A strategy's line, moved by some points so that intervals at one place do not cover each other."""
    moved = axes.transData + ScaledTranslation(place * 2.5 / 72, 0, axes.get_figure().dpi_scale_trans)
    container = axes.errorbar(
        [value for value, _, _ in line], [found.mean for _, _, found in line],
        yerr=[found.half_width or math.nan for _, _, found in line], color=look.colour, marker=look.marker, ls=look.line,
        elinewidth=0.8, capsize=2, transform=moved, ms=4.5 if len(line) <= MANY else 2.5, mec="white", mew=0.4,
    )  # fmt: skip
    axes.update_datalim([(value, found.mean) for value, _, found in line])
    return container


def _scale(axes: Axes, panel: Panel) -> None:
    values = sorted({value for line in panel.lines.values() for value, _, _ in line})
    low, high = values[0], values[-1]
    if low > 0 and (high > 20 * low or all(math.log2(value).is_integer() for value in values)):
        axes.set_xscale("log", base=2)
    if axes.get_xscale() == "log":
        room = (high / low) ** 0.12
        axes.set_xlim(low / room, high * room)
    else:
        axes.set_xlim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    plain_numbers(axes, "x")
    if len(values) <= TICKS:
        axes.set_xticks(values, [plain(_tick(panel, value), 12) for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(plain(_title(panel), 48))
    axes.grid(False, axis="x")


def _tick(panel: Panel, value: float) -> str:
    """``8``, or ``8/2`` where another axis changes with it."""
    cell = next(cell for line in panel.lines.values() for at, cell, _ in line if at == value)
    return "/".join([f"{value:g}", *(f"{cell.axes.get(axis):g}" for axis in panel.also)])


def _height(axes: Axes, panels: list[Panel], digits: int) -> None:
    """Limits of the quality, the same for all panels."""
    found = [estimate for panel in panels for line in panel.lines.values() for _, _, estimate in line]
    found += [estimate for panel in panels for estimate in panel.level.values()]
    low, high, _ = window([e.mean for e in found], [e.half_width for e in found], 5 * 10.0**-digits)
    axes.set_ylim(low, high)
    plain_numbers(axes, "y")


def _panels(results: Results) -> list[Panel]:
    shown_looks = looks(results)
    best = [cell for cell in best_of_each_strategy(results) if shown_looks[cell.strategy] is not OTHER]
    by_strategy: dict[str, list[CellResult]] = {}
    for cell in results.cells:
        by_strategy.setdefault(cell.strategy, []).append(cell)
    found: dict[frozenset, Panel] = {}
    for axis in results.varying:
        values = {cell.axes[axis] for cells in by_strategy.values() for cell in cells} - {None}
        if axis == "strategy" or len(values) < 2 or not all(_number(value) for value in values):
            continue
        lines = {cell.strategy: _along(results, axis, cell, by_strategy[cell.strategy]) for cell in best}
        lines = {strategy: line for strategy, line in lines.items() if len(line) > 1}
        if not lines:
            continue
        cells = frozenset(id(cell) for line in lines.values() for _, cell, _ in line)
        if cells in found and _follows(found[cells], axis):
            first = found[cells]
            found[cells] = Panel(first.axis, (*first.also, axis), first.lines, first.level)
        else:
            level = {c.strategy: e for c in best if c.axes[axis] is None and (e := known(c, metric_column(results)))}
            found[cells if cells not in found else frozenset((*cells, axis))] = Panel(axis, (), lines, level)
    return list(found.values())[:PANELS]


def _along(results: Results, axis: str, best: CellResult, cells: list[CellResult]) -> Line:
    """The cells of a strategy along an axis: all where each value has one, else those that else are as the best one."""
    there = [cell for cell in cells if cell.axes[axis] is not None]
    if len({cell.axes[axis] for cell in there}) < len(there):
        there = [cell for cell in there if all(cell.axes[a] == best.axes[a] for a in cell.axes if a != axis)]
    line = [(float(cell.axes[axis]), cell, found) for cell in there if (found := known(cell, metric_column(results)))]
    return sorted(line, key=lambda point: point[0])


def _follows(panel: Panel, axis: str) -> bool:
    """Whether each value of a panel has one value of another axis."""
    pairs = {(value, cell.axes[axis]) for line in panel.lines.values() for value, cell, _ in line}
    return len(pairs) == len({value for value, _ in pairs}) and all(_number(other) for _, other in pairs)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _named(axis: str) -> str:
    return axis.rsplit(".", 1)[-1]


def _title(panel: Panel) -> str:
    both = " / ".join(map(_named, (panel.axis, *panel.also)))
    return both if panel.also else LABELS.get(panel.axis, both)


def _together(panel: Panel) -> str:
    return " and ".join(map(_named, panel.also))


def _alt(results: Results, panels: list[Panel]) -> str:
    lines = [
        f"{_named(panel.axis)}, {strategy}: "
        + ", ".join(f"{value:g}: {shown(found, results.primary.digits)}" for value, _, found in line[:TICKS])
        for panel in panels
        for strategy, line in panel.lines.items()
    ]
    return f"{results.primary.label} along {', '.join(_named(panel.axis) for panel in panels)}. {'; '.join(lines)}."
