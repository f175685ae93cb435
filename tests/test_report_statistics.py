"""The report's statistics are what scipy and pencil and paper say, and tell nothing apart that is the same."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from report_runs import made
from scipy import stats

from ablation.report.comparisons import ALPHA, bold, careful, differences
from ablation.report.effects import effects, main_contrasts, two_way_contrasts
from ablation.report.pareto import FRONT, UNTOLD, standings
from ablation.report.results import MEMORY, STEP_TIME
from ablation.report.samples import by_item
from ablation.report.statistics import estimate, holm, intervals, paired, seeds_needed

QUALITY = "metric.depth_mae"
NUMBERS = st.floats(-1e3, 1e3).filter(lambda value: value == 0 or abs(value) > 1e-3)


# --- intervals and tests -------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_intervals_are_scipy_s(values):
    found = estimate(values)
    spread = np.std(values, ddof=1) / np.sqrt(len(values))
    ends = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread) if spread > 0 else [np.mean(values)] * 2
    assert [found.mean - found.half_width, found.mean + found.half_width] == pytest.approx(list(ends), abs=1e-6)


@given(arrays(float, (4, 5), elements=st.one_of(NUMBERS, st.just(np.nan))))
def test_all_rows_at_once_are_the_same_as_each_by_itself(rows):
    for row, mean, half_width in zip(rows, *intervals(rows), strict=True):
        one = estimate(row)
        known = (np.nan, np.nan) if one is None else (one.mean, np.nan if one.half_width is None else one.half_width)
        assert (mean, half_width) == pytest.approx(known, nan_ok=True, abs=1e-6)


def test_one_value_has_no_interval_and_none_no_estimate():
    assert estimate([3.0]) == (3.0, None, 1) and estimate([]) is None and estimate([float("nan")]) is None


def test_coverage_of_the_interval_with_three_seeds():
    """Nominal 95 %: of 4,000 sets of three seeds the truth must lie in 94 to 96 %."""
    mean, half_width = intervals(np.random.default_rng(0).normal(size=(4000, 3)))
    assert 0.94 < np.mean(np.abs(mean) <= half_width) < 0.96


@given(arrays(float, (3, 4), elements=NUMBERS, unique=True), st.integers(1, 3))
def test_the_paired_test_is_the_more_careful_of_scipy_s_two(rests, seeds):
    """Over all pairs, and over the means of the seeds; with one seed there is the first alone."""
    rests = rests[:seeds]
    found = paired(rests.reshape(1, -1), np.repeat(np.arange(seeds), 4))
    tests = [stats.ttest_1samp(rests.ravel(), 0)] + ([stats.ttest_1samp(rests.mean(axis=1), 0)] if seeds > 1 else [])
    widths = [(test.confidence_interval().high - test.confidence_interval().low) / 2 for test in tests]
    assert found.mean[0] == pytest.approx(rests.mean()) and found.pairs[0] == 4 * seeds and found.seeds[0] == seeds
    assert found.half_width[0] == pytest.approx(max(widths), rel=1e-6, abs=1e-6)
    assert found.p[0] == pytest.approx(max(test.pvalue for test in tests), abs=1e-6)
    assert (found.p[0] < 0.05) == (abs(found.mean[0]) > found.half_width[0]) or found.p[0] == pytest.approx(0.05)


def test_pairs_that_are_not_whole_do_not_count():
    seeds = np.repeat(np.arange(3), 2)
    rests = np.array([[1.0, np.nan, 2.0, 4.0, np.nan, np.nan], [np.nan] * 6, [3.0, *[np.nan] * 5]])
    found = paired(rests, seeds)
    assert found.pairs.tolist() == [3, 0, 1] and found.seeds.tolist() == [2, 0, 1] and found.mean[0] == pytest.approx(7 / 3)
    assert np.isnan(found.half_width[1:]).all() and np.isnan(found.p[1:]).all() and found.half_width[0] > 0


@pytest.mark.parametrize(("value", "p", "of_metric"), [(0.0, 1.0, 1.0), (0.3, 0.0, 1.0)])
def test_what_is_the_same_in_all_pairs_has_no_spread_to_judge_by(value, p, of_metric):
    """Three accuracies may all differ by one picture of forty; memory that differs so is another memory."""
    found = paired(np.full((1, 3), 0.1 + value) - 0.1, np.arange(3))
    assert found.half_width[0] == 0 and found.p[0] == p
    assert careful(found, counted=True)[0] == of_metric and careful(found, counted=False)[0] == p


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_coverage_holds_where_models_differ_from_seed_to_seed_in_all_items(shared):
    """An interval over all 24 pairs covers 61 % then: pairs of a seed share a model."""
    rng = np.random.default_rng(1)
    rests = shared * rng.normal(size=(4000, 3, 1)) + rng.normal(size=(4000, 3, 8))
    found = paired(rests.reshape(4000, 24), np.repeat(np.arange(3), 8))
    covered = np.mean(np.abs(found.mean) <= found.half_width)
    mean, half_width = intervals(rests.reshape(4000, 24))
    naive = np.mean(np.abs(mean) <= half_width)
    assert covered > 0.94 and (naive < 0.7 if shared else naive > 0.94)


# --- many tests ----------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.02, np.nan, 0.6])) == pytest.approx([0.04, np.nan, 0.6], nan_ok=True)
    assert holm(np.array([0.02, 0.001]), family=5) == pytest.approx([0.08, 0.005])
    assert holm(np.array([np.nan])).shape == (1,) and holm(np.array([])).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_his_procedure_rejects(p, level):
    rejected = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(holm(np.array(p))) if value <= level} == rejected


def simulated(rng, cells, seeds=3, items=6):
    """(cells, seeds x items) of cells that are all the same: items differ, and so does each trained model in all of them."""
    item, seed = rng.normal(size=items), rng.normal(size=(seeds, 1))
    model, noise = rng.normal(size=(cells, seeds, 1)), rng.normal(size=(cells, seeds, items))
    return (item + seed + model + noise).reshape(cells, -1)


def test_verdicts_on_equal_cells_are_wrong_in_at_most_one_study_of_twenty():
    """1,000 studies of six equal cells: any cell called better or worse than the baseline, any number in bold."""
    rng, seeds = np.random.default_rng(2), np.repeat(np.arange(3), 6)
    told = bolded = 0
    for values in (simulated(rng, 6) for _ in range(1000)):
        told += bool((holm(careful(paired(values[1:] - values[0], seeds), True)) < ALPHA).any())
        bolded += bool(bold(values, seeds, True))
    assert told < 65 and bolded < 65  # 50, and two standard deviations of that


def test_counted_metrics_are_not_told_apart_by_their_ties():
    """Two seeds, 40 trials each: differences are often the same in both, and mean nothing."""
    rng = np.random.default_rng(3)
    studies = [rng.binomial(40, 0.9, size=(3, 2)) / 40 for _ in range(1000)]
    wrong = sum(bool((holm(careful(paired(v[1:] - v[0], np.arange(2)), True)) < ALPHA).any()) for v in studies)
    assert wrong < 65


def test_bold_is_the_best_and_what_cannot_be_told_from_it():
    seeds = np.arange(5)
    noise = 0.01 * np.random.default_rng(4).normal(size=(3, 5))
    values = np.array([[1.0], [1.002], [2.0]]) + noise
    assert bold(values, seeds, True) == {0, 1}
    assert bold(values[[0, 2]], seeds, True) == {0} and bold(-values, seeds, True) == {2}
    assert bold(values[:2], seeds, True) == set(), "nothing is told apart"
    assert bold(values[:, :1], seeds[:1], True) == set(), "one seed"
    assert bold(np.full((3, 5), np.nan), seeds, True) == set() and bold(values[:1], seeds, True) == set()
    assert bold(np.array([[1.0] * 5, [2.0] * 5, [np.nan] * 5]), seeds, False) == {0}


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.integers(1, 10))
def test_the_seeds_that_are_needed_are_the_fewest(difference, spread, tests):
    def told(count):
        return stats.t.sf(difference / spread * np.sqrt(count), count - 1) * 2 * tests < 0.05

    count = seeds_needed(difference, spread, tests)
    if count is None:
        assert not told(1000)
    else:
        assert told(count) and (count == 2 or not told(count - 1))


# --- differences to the baseline -----------------------------------------------------------------------------------------


def by_items(cell, seed):
    rng = np.random.default_rng([seed, cell["rank"], ord(cell["strategy"][0])])
    return 1 + np.arange(4) + 0.3 * seed - (0.2 if cell["strategy"] == "B" else 0) + 0.01 * rng.normal(size=4)


def test_differences_are_paired_by_item_and_seed():
    """What items and seeds have in common is a hundred times what the strategies differ by."""
    results = made(by_items)
    found = {results.cells[one.cell].label: one for one in differences(results, results.primary)}
    assert list(found) == ["A, rank 4", "B, rank 4", "B, rank 16"]
    assert all((one.pairs, one.seeds) == (12, 3) for one in found.values())
    assert found["B, rank 4"].verdict == found["B, rank 16"].verdict == "better" and found["B, rank 4"].p < 0.01
    assert found["A, rank 4"].verdict == "cannot be told apart" and found["B, rank 4"].mean == pytest.approx(-0.2, abs=0.02)


def test_a_metric_that_is_not_the_mean_of_its_items_is_paired_by_seed():
    results = made(by_items)
    assert by_item(results, QUALITY).items == 4
    results.runs[QUALITY] = results.runs[QUALITY] ** 2
    assert by_item(results, QUALITY).items == 0 and by_item(results, MEMORY).items == 0
    assert {one.pairs for one in differences(results, results.primary)} == {3}


def test_one_seed_tells_of_these_weights_alone_and_one_pair_of_nothing():
    results = made(by_items, seeds=1)
    assert [one.verdict for one in differences(results, results.primary)][1:] == ["better (one seed)"] * 2
    results = made(lambda cell, seed: by_items(cell, seed).mean(), seeds=1)
    found = differences(results, results.primary)
    assert all(one.verdict == "one pair gives no interval" and one.half_width is None and one.p is None for one in found)


def test_cells_without_a_value_are_listed_as_what_became_of_them():
    fates = {("A", 4): ["oom"] * 3, ("B", 4): ["diverged", "failed", "diverged"], ("B", 16): ["completed", "oom", "completed"]}

    def outcome(cell, seed):
        return fates.get((cell["strategy"], cell["rank"]), ["completed"] * 3)[seed]

    results = made(by_items, outcome=outcome)
    found = differences(results, results.primary)
    assert [one.verdict for one in found[:2]] == ["OOM", "2 diverged, 1 failed"] and found[2].pairs == 8
    results = made(by_items, outcome=lambda cell, seed: "oom" if cell == {"strategy": "A", "rank": 16} else "completed")
    assert {one.verdict for one in differences(results, results.primary)} == {"no pair"}
    assert differences(made(by_items, baseline="null"), results.primary) == []


# --- effects of axes -----------------------------------------------------------------------------------------------------

GRID = {"strategy": ["A", "B", "C"], "rank": [4, 16], "batch": [1, 2]}


def noisy(cell, seed):
    return np.random.default_rng([seed, ord(cell["strategy"][0]), cell["rank"] or 0, cell["batch"]]).normal()


def test_main_effects_of_a_full_grid_are_differences_of_its_means():
    results = made(noisy, GRID)
    for one in effects(results, main_contrasts(results), QUALITY):
        axis, (first, level) = one.contrast.label, one.contrast.levels.split(" → ")
        means = results.runs.groupby(results.runs[axis].astype(str))[QUALITY].mean()
        assert one.before == pytest.approx(means[first]) and one.mean == pytest.approx(means[level] - means[first])
        assert one.seeds == 3 and one.pairs == 3 * (4 if axis == "strategy" else 6)
    assert [one.levels for one in main_contrasts(results)] == ["A → B", "A → C", "16 → 4", "1 → 2"]


def test_interactions_are_differences_of_differences():
    results = made(noisy, GRID)
    found = {one.contrast.levels: one for one in effects(results, two_way_contrasts(results), QUALITY)}
    assert len(found) == 2 * 1 + 2 * 1 + 1
    table = results.runs.groupby(["strategy", "rank", "seed"])[QUALITY].mean().unstack("seed")
    rests = table.loc["B", 4] - table.loc["B", 16] - table.loc["A", 4] + table.loc["A", 16]
    one = found["(A → B) × (16 → 4)"]
    assert one.contrast.label == "strategy × rank" and one.mean == pytest.approx(rests.mean()) and one.pairs == 6


def test_an_interaction_that_is_there_is_told_and_none_where_there_is_none():
    def quality(cell, seed):
        return (0.5 if (cell["strategy"], cell["rank"]) == ("B", 4) else 0) + 0.02 * noisy(cell, seed)

    results = made(quality, GRID, seeds=4)
    told = [one.contrast.levels for one in effects(results, two_way_contrasts(results), QUALITY) if one.p < ALPHA]
    assert told == ["(A → B) × (16 → 4)"]


def test_holes_in_the_grid_take_their_pairs_with_them():
    hole = {"strategy": "B", "rank": 4, "batch": 1}
    results = made(noisy, GRID, outcome=lambda cell, seed: None if cell == hole else "oom" if seed == 2 else "completed")
    found = {one.contrast.levels: one for one in effects(results, main_contrasts(results), QUALITY)}
    assert (found["A → B"].pairs, found["A → C"].pairs, found["16 → 4"].pairs) == (6, 8, 10)
    results = made(noisy, GRID, outcome=lambda cell, seed: None if cell["rank"] != 4 * cell["batch"] ** 2 else "completed")
    found = main_contrasts(results)
    assert [(one.label, one.levels) for one in found] == [
        ("strategy", "A → B"), ("strategy", "A → C"), ("rank, batch", "16, 2 → 4, 1"),
    ]  # fmt: skip


def test_an_axis_that_means_nothing_to_a_level_does_not_keep_it_from_being_compared():
    """Full fine-tuning has no rank: it is compared with the mean over the ranks."""
    axes = {"strategy": ["A", "B"], "rank": [None, 4, 16], "batch": [1, 2]}
    results = made(
        noisy, axes, outcome=lambda cell, seed: "completed" if (cell["rank"] is None) == (cell["strategy"] == "B") else None
    )
    strategy, rank, batch = effects(results, main_contrasts(results), QUALITY)
    means = results.runs.groupby("strategy")[QUALITY].mean()
    assert strategy.pairs == 6 and strategy.mean == pytest.approx(means["B"] - means["A"])
    assert (rank.contrast.levels, rank.pairs, batch.pairs) == ("16 → 4", 6, 9)


# --- the front -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_the_front_is_that_of_its_definition(seed, seeds):
    rng = np.random.default_rng(seed)
    table = {key: rng.integers(0, 4, 3) + 0.3 * rng.normal(size=(seeds, 3)) for key in product("AB", (4, 16))}
    columns = [lambda cell, s, k=k: table[cell["strategy"], cell["rank"]][s, k] for k in range(3)]
    results = made(columns[0], seeds=seeds, memory=columns[1], step=columns[2])
    cells = list(table.values())
    for one, cell in zip(standings(results), cells, strict=True):
        better = [other for other in cells if other is not cell and (other.mean(axis=0) <= cell.mean(axis=0)).all()]
        told = [
            any(stats.ttest_rel(other[:, k], cell[:, k]).confidence_interval().high < 0 for k in range(3))
            if seeds > 1
            else False
            for other in better
        ]
        assert (one.front == FRONT) == (not better) and (one.front == UNTOLD) == (bool(better) and not any(told))
        assert one.dominated_by is None or told[[other is cells[one.dominated_by] for other in better].index(True)]


def test_a_cell_that_did_not_run_is_no_part_of_the_front():
    results = made(by_items, outcome=lambda cell, seed: "oom" if cell["strategy"] == "B" else "completed")
    assert [one.front for one in standings(results)][2:] == ["OOM", "OOM"]
    results.runs[STEP_TIME] = np.nan
    assert [one.front for one in standings(results)][:2] == ["not measured"] * 2
