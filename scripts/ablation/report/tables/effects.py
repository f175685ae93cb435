"""What each axis does by itself, and which axes do more together."""

from ablation.report.comparisons import ALPHA, ONE_TRAINING, verdict_of
from ablation.report.effects import Contrast, Effect, effects, main_contrasts, two_way_contrasts
from ablation.report.numbers import difference, enough_digits, p_value
from ablation.report.results import MEMORY, STEP_TIME, Results
from ablation.report.samples import METRIC
from ablation.report.table import NONE, Cell, Column, Row, Table, texts

Judged = tuple[Effect, Effect | None, Effect | None]  # one contrast in quality, memory, step time


def effect_table(results: Results) -> Table | None:
    """A row a level of an axis against the axis's first one; then the interactions that could be told. None without pairs."""
    main = _judged(results, main_contrasts(results))
    if not main:
        return None
    tested = _judged(results, two_way_contrasts(results))
    told = [row for row in tested if row[0].p is not None and row[0].p < ALPHA]
    metric = results.primary
    columns = [
        Column("axis", "axis", numeric=False),
        Column("levels", "levels", numeric=False),
        Column("pairs", "pairs"),
        Column(f"{metric.name}_first", f"{metric.label} at first level", metric.unit),
        Column(f"{metric.name}_effect", "effect", metric.unit, "lower" if metric.lower_is_better else "higher"),
        Column("p_holm", "p"),
        Column("verdict", "verdict", numeric=False),
        Column("memory_effect", "memory", "GiB", "lower"),
        Column("step_effect", "step", "s", "lower"),
    ]
    rows = _rows(results, main)
    if told:
        rows += [Row([Cell("interactions"), *texts(*[""] * (len(columns) - 1))], "group"), *_rows(results, told)]
    return Table("effects", "Effect of each axis", _caption(main, tested, told) + results.packed, columns, rows)


def _judged(results: Results, contrasts: list[Contrast]) -> list[Judged]:
    """The contrasts that have a pair in quality."""
    columns = (METRIC + results.primary.name, MEMORY, STEP_TIME)
    found = zip(*(effects(results, contrasts, column) for column in columns), strict=True)
    return [row for row in found if row[0] is not None]


def _rows(results: Results, judged: list[Judged]) -> list[Row]:
    metric = results.primary
    digits = [
        enough_digits([number for row in judged if row[i] for number in (row[i].mean, row[i].half_width)], least)
        for i, least in enumerate((metric.digits, 3, 3))
    ]
    return [_row(results, row, digits) for row in judged]


def _row(results: Results, row: Judged, digits: list[int]) -> Row:
    effect, metric = row[0], results.primary
    contrast = effect.contrast
    cells = dict.fromkeys(i for _, groups in contrast.terms for group in groups for i in group)
    runs = tuple(run for i in cells for run in results.cells[i].ids)
    quality, *costs = (_cell(one, d, runs) for one, d in zip(row, digits, strict=True))
    two_way = len(contrast.terms) > 2
    before = Cell(NONE) if two_way else Cell(f"{effect.before:.{metric.digits}f}", effect.before, runs=runs)
    verdict = ONE_TRAINING if _one_training(results, contrast) else _verdict(effect, metric.lower_is_better, two_way)
    judgement = [Cell(p_value(effect.p), effect.p), Cell(verdict)]
    pairs = Cell(str(effect.pairs), effect.pairs)
    return Row([Cell(contrast.label), Cell(contrast.levels), pairs, before, quality, *judgement, *costs])


def _cell(one: Effect | None, digits: int, runs: tuple[str, ...]) -> Cell:
    if one is None:
        return Cell(NONE)
    return Cell(difference(one.mean, one.half_width, digits), one.mean, one.half_width, runs=runs)


def _one_training(results: Results, contrast: Contrast) -> bool:
    """Whether the levels are but two names for what was in force, so that what differs is chance or rounding."""
    group_of = {run.id: number for number, group in enumerate(results.alike) for run in group.runs}
    found = [
        [{group_of.get(run) for i in cells for run in results.cells[i].ids} for cells in contexts]
        for _, contexts in contrast.terms
    ]
    return all(side == found[0] for side in found) and not any(None in groups for groups in found[0])


def _verdict(effect: Effect, lower: bool, two_way: bool) -> str:
    return "told" if two_way else verdict_of(effect.mean, effect.p, effect.pairs, effect.seeds, lower)


def _caption(main: list[Judged], tested: list[Judged], told: list[Judged]) -> str:
    seeds = max(row[0].seeds for row in main)
    said = [
        "Second level minus first over cells that differ in this axis alone, paired by cell and seed; mean ± 95 % t interval"
        f"{' (the wider of those over pairs and over seeds)' if seeds > 1 else ''}.",
    ]
    if any(row[0].p is not None for row in main):
        said.append("p: paired t test, Holm-corrected over the rows.")
    if seeds == 1:
        said.append("With one seed, what differs by chance of training is not known.")
    said.append(_interactions(len([row for row in tested if row[0].p is not None]), len(told)))
    return " ".join(part for part in said if part)


def _interactions(tested: int, told: int) -> str:
    """What became of the differences of differences."""
    if not tested:
        return ""
    if not told:
        one = tested == 1
        number = "The one two-way interaction" if one else f"None of the {tested} two-way interactions"
        return f"{number} {'cannot' if one else 'can'} be told from zero."
    return f"Interactions: differences of differences; the {told} of {tested} with p < {ALPHA} are listed."
