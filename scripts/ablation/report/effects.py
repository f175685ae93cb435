"""What each axis does by itself, and which axes do more together, from cells that differ in nothing else."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from ablation.report.comparisons import careful
from ablation.report.results import Results
from ablation.report.samples import METRIC, by_seed
from ablation.report.statistics import holm, paired

Level = tuple[Any, ...]
Cells = dict[Hashable, list[int]]  # by context: the values of the other axes


@dataclass(frozen=True)
class Factor:
    """An axis that varies, or several that only vary together, as batch and accumulation may."""

    axes: tuple[str, ...]
    levels: tuple[Level, ...]
    """Their values. The others are compared with the first: the (first) baseline's, where it has one."""

    @property
    def label(self) -> str:
        """``batch, accumulation``."""
        return ", ".join(axis.rsplit(".", 1)[-1] for axis in self.axes)


@dataclass(frozen=True)
class Contrast:
    """A level of a factor against its first, or the same of two factors at once."""

    label: str
    """``rank``, ``strategy × rank``."""
    levels: str
    """``4 → 16``, ``(A → B) × (4 → 16)``."""
    terms: tuple[tuple[int, list[list[int]]], ...]
    """With its sign, each side's cells by context; the one that is asked about first."""

    def values(self, values: np.ndarray) -> np.ndarray:
        """(contexts, seeds) of ``values`` (cells, seeds): the differences, NaN where one of the cells has no value."""
        return sum(sign * _means(values, groups) for sign, groups in self.terms)


@dataclass(frozen=True)
class Effect:
    """A contrast in one column."""

    contrast: Contrast
    before: float
    """Mean of the first level, over the pairs."""
    mean: float
    half_width: float | None
    """None with one pair; and for a metric that differs by the same in all of them."""
    p: float | None
    """Holm-adjusted over the contrasts of its kind."""
    pairs: int
    seeds: int


def main_contrasts(results: Results) -> list[Contrast]:
    """Each level of each factor against the first one, wherever cells differ in that factor alone."""
    grid = _Grid(results)
    found = []
    for factor in grid.factors:
        for level in factor.levels[1:]:
            sides = grid.matched([{factor: level}, {factor: factor.levels[0]}])
            if sides[0]:
                terms = tuple(zip((1, -1), sides, strict=True))
                found.append(Contrast(factor.label, f"{_words(factor.levels[0])} → {_words(level)}", terms))
    return found


def two_way_contrasts(results: Results) -> list[Contrast]:
    """Differences of differences: what a level of one factor changes at a level of another, more than at that one's first."""
    grid = _Grid(results)
    found = []
    for one, two in combinations(grid.factors, 2):
        firsts = ((a, b, _two_way(grid, one, two, a, b)) for a, b in product(one.levels, two.levels))
        found += next((contrasts for _, _, contrasts in firsts if contrasts), [])
    return found


def effects(results: Results, contrasts: Iterable[Contrast], column: str) -> list[Effect | None]:
    """Each contrast in ``column``, paired by context and seed; None for those without a pair."""
    sample, contrasts = by_seed(results, column), list(contrasts)
    rests = [contrast.values(sample.values) for contrast in contrasts]
    judged = [paired(rest.reshape(1, -1), np.tile(sample.seeds, len(rest))) for rest in rests]
    counted = column.startswith(METRIC)
    adjusted = holm(np.asarray([careful(found, counted)[0] for found in judged]))
    found = []
    for contrast, rest, one, p in zip(contrasts, rests, judged, adjusted, strict=True):
        if not one.pairs[0]:
            found.append(None)
            continue
        first = _means(sample.values, contrast.terms[-1][1])
        before = float(np.mean(first[~np.isnan(rest)]))
        known = one.pairs[0] > 1 and (one.half_width[0] > 0 or not counted)
        half_width, p = (float(one.half_width[0]), float(p)) if known else (None, None)
        found.append(Effect(contrast, before, float(one.mean[0]), half_width, p, int(one.pairs[0]), int(one.seeds[0])))
    return found


class _Grid:
    """The cells by their values of the axes that vary."""

    def __init__(self, results: Results):
        self.axes = results.varying
        self.rows = [tuple(cell.axes[axis] for axis in self.axes) for cell in results.cells]
        self.factors = _factors(self.axes, self.rows, next((self.rows[i] for i in results.baselines), None))
        self.cells: dict[tuple[Factor, Level], set[int]] = defaultdict(set)
        for factor in self.factors:
            places = [self.axes.index(axis) for axis in factor.axes]
            for i, row in enumerate(self.rows):
                self.cells[factor, tuple(row[p] for p in places)].add(i)

    def matched(self, corners: list[dict[Factor, Level]]) -> list[list[list[int]]]:
        """For each corner its cells, context by context, in the contexts that all have.

        An axis that means nothing in all cells of one corner, as the rank does without an adapter, is not part of the context.
        """
        chosen = [set.intersection(*(self.cells[pair] for pair in corner.items())) for corner in corners]
        if not all(chosen):
            return [[] for _ in corners]
        own = {axis for factor in corners[0] for axis in factor.axes}
        places = [
            place
            for place, axis in enumerate(self.axes)
            if axis not in own and all(any(self.rows[i][place] is not None for i in cells) for cells in chosen)
        ]
        contexts = [_by_context(self.rows, sorted(cells), places) for cells in chosen]
        common = [context for context in contexts[0] if all(context in other for other in contexts)]
        return [[cells[context] for context in common] for cells in contexts]


def _factors(axes: list[str], rows: list[tuple[Any, ...]], baseline: tuple[Any, ...] | None) -> list[Factor]:
    """The axes that vary; those that tell each other's values, one to one, as one factor."""
    groups: list[list[int]] = []
    for place in range(len(axes)):
        if len({row[place] for row in rows}) < 2:
            continue
        same = next((group for group in groups if _one_to_one({(row[group[0]], row[place]) for row in rows})), None)
        if same is None:
            groups.append([place])
        else:
            same.append(place)
    found = []
    for group in groups:
        levels = dict.fromkeys(tuple(row[place] for place in group) for row in rows)
        levels.pop((None,), None)  # an axis has no effect where it means nothing
        first = None if baseline is None else tuple(baseline[place] for place in group)
        ordered = sorted(levels, key=lambda level, first=first: level != first)
        if len(ordered) > 1:
            found.append(Factor(tuple(axes[place] for place in group), tuple(ordered)))
    return found


def _one_to_one(pairs: set[tuple[Any, Any]]) -> bool:
    return len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def _by_context(rows: list[tuple[Any, ...]], cells: Iterable[int], places: list[int]) -> Cells:
    found: Cells = defaultdict(list)
    for i in cells:
        found[tuple(rows[i][place] for place in places)].append(i)
    return found


def _two_way(grid: _Grid, one: Factor, two: Factor, a: Level, b: Level) -> list[Contrast]:
    """All levels of two factors against their levels ``a`` and ``b``."""
    found = []
    for other, another in product(one.levels, two.levels):
        if other == a or another == b:
            continue
        corners = [{one: x, two: y} for x, y in ((other, another), (other, b), (a, another), (a, b))]
        sides = grid.matched(corners)
        if sides[0]:
            levels = f"({_words(a)} → {_words(other)}) × ({_words(b)} → {_words(another)})"
            terms = tuple(zip((1, -1, -1, 1), sides, strict=True))
            found.append(Contrast(f"{one.label} × {two.label}", levels, terms))
    return found


def _means(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """(contexts, seeds): means over the cells of a context, NaN where one of them has no value."""
    if all(len(group) == 1 for group in groups):
        return values[[group[0] for group in groups]]
    return np.stack([values[group].mean(axis=0) for group in groups])


def _words(level: Level) -> str:
    return ", ".join(str(value) for value in level if value is not None)
