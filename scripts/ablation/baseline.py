"""The cells that a study's ``baseline`` stands for, and which of them every cell is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ablation.errors import UserError
from ablation.study import Cell, Study
from ablation.sweep import Run, all_axes
from ablation.yamlfile import in_line

SHOWN = 3  # cells that an error names


class Compared(NamedTuple):
    """What every cell is compared with: the baseline, or where that leaves axes open, the one of the same values there."""

    open: list[str]
    """Axes in which the cells differ that the baseline fits; empty where it is one cell, or none."""
    of: list[int | None]
    """The index of each cell's baseline, which may be the cell itself; None for a cell without one."""


def compared(baseline: Mapping[str, Any] | None, cells: Sequence[Cell]) -> Compared:
    """``cells``: their values by axis, without the seed. An axis that none of them has is no reason not to fit."""
    found = [i for i, cell in enumerate(cells) if baseline and _fits(baseline, cell)]
    axes = [axis for axis in cells[0] if len({cells[i][axis] for i in found}) > 1] if found else []
    levels = {_level(cells[i], axes): i for i in found}
    return Compared(axes, [levels.get(_level(cell, axes)) for cell in cells])


def is_baseline(study: Study, run: Run) -> bool:
    """Whether a run is of a cell that the study's baseline fits."""
    return bool(study.baseline) and _fits(study.baseline, all_axes(study, run))


def check_baseline(study: Study, name: str, runs: Iterable[Run]) -> None:
    """Raises :class:`UserError` where the baseline is none of the cells, or not one for each. A single cell needs none."""
    if not study.baseline:
        return
    if "seed" in study.baseline:
        raise UserError(f"study {name}: baseline: a cell has all its seeds; leave out seed")
    cells = _cells(study, runs)
    found = compared(study.baseline, cells)
    if len(cells) == 1 or None not in found.of:
        return
    nowhere = all(of is None for of in found.of)
    problem = _none(study.baseline, cells) if nowhere else _several(study.baseline, cells, found)
    raise UserError(f"study {name}: baseline: {problem}; --config baseline=null compares with none")


def _cells(study: Study, runs: Iterable[Run]) -> list[Cell]:
    """All axes of each cell but the seed."""
    unique = {tuple((axis, value) for axis, value in run.axes.items() if axis != "seed"): run for run in runs}
    return [{axis: value for axis, value in all_axes(study, run).items() if axis != "seed"} for run in unique.values()]


def _fits(baseline: Mapping[str, Any], cell: Cell) -> bool:
    return all(cell[axis] == value for axis, value in baseline.items() if axis in cell)


def _level(cell: Cell, axes: Sequence[str]) -> tuple[Any, ...]:
    return tuple(cell[axis] for axis in axes)


def _none(baseline: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """That it is no cell, and which ones come nearest."""
    nearest = min(_distance(baseline, cell)[0] for cell in cells)
    near = sorted((cell for cell in cells if _distance(baseline, cell)[0] == nearest), key=lambda c: _distance(baseline, c))
    said = [{axis: cell[axis] for axis in baseline if cell[axis] is not None} for cell in near]
    listed = list(dict.fromkeys(_braced(cell) for cell in said))
    change = {axis: value for axis, value in said[0].items() if value != baseline[axis]}
    how = f"such as --config 'baseline={_braced(change)}'" if len(said[0]) == len(baseline) else "in the study's file"
    return f"no cell of the sweep is {_braced(baseline)}; nearest: {_some(listed)}\n  name one of its cells, {how}"


def _several(baseline: Mapping[str, Any], cells: Sequence[Cell], found: Compared) -> str:
    """That it is several cells, which others have no counterpart among; and how one of them is named."""
    fitting = [cells[i] for i, of in enumerate(found.of) if of == i]
    alone = [cell for cell, of in zip(cells, found.of, strict=True) if of is None]
    named = list(dict.fromkeys([*(axis for axis in cells[0] if len({cell[axis] for cell in cells}) > 1), *found.open]))
    levels = [_braced({axis: cell[axis] for axis in found.open}) for cell in fitting]
    change = _braced({axis: fitting[0][axis] for axis in found.open})
    return (
        f"{_braced(baseline)} is {len(fitting)} cells, {_some(levels)}, none of which is as {len(alone)} other"
        f" cell{'s are' if len(alone) > 1 else ' is'} there:"
        f" {_some([_braced({axis: cell[axis] for axis in named if cell[axis] is not None}) for cell in alone])}\n"
        f"  name one, such as --config 'baseline={change}'"
    )


def _distance(baseline: Mapping[str, Any], cell: Cell) -> tuple[int, float]:
    """In how many axes a cell is another, and by how much."""
    other = [(value, cell[axis]) for axis, value in baseline.items() if axis in cell and cell[axis] != value]
    return len(other), sum(_apart(*pair) for pair in other)


def _apart(one: Any, other: Any) -> float:
    if other is None:  # has no meaning there: to leave it out is enough
        return 0.0
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return abs(one - other) / (abs(one) + abs(other)) if numbers and (one or other) else 1.0


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _braced(values: Mapping[str, Any]) -> str:
    return f"{{{in_line(dict(values))}}}"
