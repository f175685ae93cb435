"""The summary, and the captions and verdicts of the tables of comparisons, say what the numbers say and nothing else."""

import numpy as np
import pytest
from report_runs import made

from ablation.report.comparisons import differences
from ablation.report.numbers import change, difference, enough_digits, p_value, p_words, signed
from ablation.report.tables.differences import difference_table
from ablation.report.tables.effects import effect_table
from ablation.report.tables.pareto import pareto_table
from ablation.report.words import summary


def quality(cell, seed, effect=0.05, noise=0.002):
    """Depth MAE of six items, about 0.6 m; strategy B has less of it."""
    rng = np.random.default_rng([seed, cell["rank"] or 0, ord(cell["strategy"][0])])
    level = 0.6 + 0.05 * seed - (effect if cell["strategy"] == "B" else 0) + noise * rng.normal()
    return level + 0.1 * np.arange(6) + 0.001 * rng.normal(size=6)


def memory(cell, seed):
    return {"A": 8.0, "B": 4.0}[cell["strategy"]] + 0.5 * cell["rank"]


def fates(**by_cell):
    """Outcomes from ``A4=["oom", ...]``."""
    return lambda cell, seed: by_cell.get(f"{cell['strategy']}{cell['rank']}", ["completed"] * 9)[seed]


def texts(table):
    return [[cell.text for cell in row.cells] for row in table.rows]


def whole(table):
    """Every row has a cell for each column."""
    assert all(len(row.cells) == len(table.columns) for row in table.rows) and table.caption and table.title
    return table


# --- numbers ---------------------------------------------------------------------------------------------------------------


def test_numbers_as_people_read_them():
    assert [signed(value, 2) for value in (0.126, -0.126, -0.001)] == ["+0.13", "−0.13", "0.00"]
    assert difference(-0.0123, 0.004, 3) == "−0.012 ± 0.004" and difference(0.5, None, 1) == "+0.5"
    assert difference(None, None, 1) == difference(float("nan"), None, 1) == "–"
    assert [change(*pair) for pair in ((1.12, 1), (0.988, 1), (28, 1), (299, 2))] == ["+12 %", "−1.2 %", "×28", "×150"]
    assert [p_value(p) for p in (None, 0.0002, 0.012, 0.0499, 0.3)] == ["–", "<0.001", "0.012", "0.04990", "0.30"]
    assert p_words(0.0002) == "p < 0.001" and p_words(0.012) == "p = 0.012"


def test_no_difference_is_printed_as_zero_that_is_none():
    assert enough_digits([0.1, 0.0004, None], 3) == 4 and enough_digits([0.1, 0.02], 3) == 3
    assert enough_digits([0.1, 1e-9], 3) == 3, "what is nothing beside the others"
    assert enough_digits([], 2) == enough_digits([None, 0.0], 2) == 2 and enough_digits([1e-6], 3) == 5


# --- the summary -------------------------------------------------------------------------------------------------------------


def test_what_won_by_how_much_and_what_it_costs():
    results = made(quality, seeds=4, memory=memory)
    compared, gain, best, others, costs = summary(results)
    one = min(differences(results, results.primary), key=lambda one: one.mean)
    assert compared == "16 runs in 4 cells over strategy and rank, 4 seeds: all completed."
    assert gain.startswith("On held-out data the depth MAE went from 1.200 m before training to 0.8")
    assert gain.endswith("improved in 4 of 4 cells.")
    assert f"is −{abs(one.mean):.3f} ± {one.half_width:.3f} m, −" in best and "of its value (24 pairs, p " in best
    assert best.startswith("The best mean depth MAE is that of B, rank") and best.endswith("after Holm's correction).")
    assert others == "Of 3 cells compared with the baseline, 2 are better (B, rank 4; B, rank 16) and 1 cannot be told from it."
    assert costs.startswith("Cost of the best (B, rank ") and "0.1 s a step (as the baseline)" in costs


def test_a_baseline_that_is_best_is_said_to_be():
    results = made(lambda cell, seed: quality(cell, seed, effect=-0.05) - (0.01 if cell["rank"] == 16 else 0), memory=memory)
    text = " ".join(summary(results))
    assert "is that of the baseline (A, rank 16): 0." in text and "Its difference" not in text
    assert "Cost of the best (the baseline): 16 GiB and 0.1 s a step. The least memory is that of B, rank 4: 6 GiB" in text
    assert "(−62 % against the baseline); in depth MAE it is worse than the baseline." in text


def test_cells_that_tie_for_the_best_are_counted():
    text = " ".join(summary(made(lambda cell, seed: 0.5 + 0.1 * seed, memory=memory)))
    assert "is that of the baseline (A, rank 16) and of 3 more cells: 0.600" in text
    assert "Of 3 cells compared with the baseline, all are equal to it." in text


def test_what_cannot_be_told_apart_is_said_with_the_seeds_that_it_takes():
    text = " ".join(summary(made(lambda cell, seed: quality(cell, seed, 0.01, 0.05), seeds=5)))
    assert "the two cannot be told apart." in text and "None of the 3 cells compared with the baseline can be told" in text
    assert "At the spread observed, about 400 seeds would be needed to tell A, rank 4 from the baseline." in text


def test_few_seeds_are_called_few_also_where_more_were_planned():
    assert "With 2 seeds a cell the intervals rest on one degree of freedom;" in summary(made(quality, seeds=2))[-1]
    lost = ["completed", "oom", "oom"]
    text = summary(made(quality, outcome=fates(A4=lost, A16=lost, B4=lost, B16=lost)))
    assert "With 1 seed a cell nothing is known of how training varies" in text[-1]
    assert "told apart over the items, for the weights of one seed." in " ".join(text)
    text = " ".join(summary(made(lambda cell, seed: quality(cell, seed).mean(), seeds=1)))
    assert "(1 pair); one pair gives no interval." in text and "told apart" not in text and "±" not in text


def test_runs_that_did_not_end_well_are_named():
    outcomes = fates(A4=["oom"] * 3, B4=["completed", "oom", "diverged"], B16=["oom (predicted)"] * 3)
    results = made(quality, outcome=outcomes)
    results.runs["oom.budget_gib"], results.runs["oom.emulated"] = 23.14, True
    text = " ".join(summary(results))
    assert "4 OOM, 4 completed, 3 OOM (predicted), 1 diverged." in text
    assert "Out of memory on the card (emulated rtx4090, 23.1 GiB): A, rank 4; B, rank 4 (1 of 3 runs)." in text
    assert "Out of memory by the plan, and not run (emulated rtx4090, 23.1 GiB): B, rank 16." in text
    assert "Diverged: B, rank 4 (1 of 3 runs). Such runs are listed and count in no mean." in text


def test_runs_that_learned_nothing_are_named_with_what_was_found():
    results = made(quality, outcome=fates(A4=["untrained"] * 3, B4=["completed", "completed", "untrained"]))
    results.runs["diagnosis"] = results.runs["outcome"].map({"untrained": "weights unchanged"})
    text = " ".join(summary(results))
    assert (
        "Untrained (weights unchanged): A, rank 4; B, rank 4 (1 of 3 runs). Such runs are listed and count in no mean." in text
    )


def test_many_cells_that_failed_are_counted():
    axes = {"strategy": ["A"], "rank": list(range(1, 21))}
    text = " ".join(summary(made(quality, axes, outcome=lambda cell, seed: "failed" if cell["rank"] != 16 else "completed")))
    assert "Failed: A, rank 1; A, rank 2; A, rank 3; A, rank 4; and 15 more cells." in text


def test_nothing_to_compare():
    text = summary(made(quality, outcome=lambda cell, seed: "oom"))
    assert text[1].endswith("nothing to compare.") and "A, rank 4; A, rank 16; B, rank 4; B, rank 16." in text[2]
    text = " ".join(summary(made(quality, outcome=fates(A16=["failed"] * 3))))
    assert "cannot be compared with the baseline (A, rank 16), which has none (failed)." in text
    text = " ".join(summary(made(quality, outcome=fates(A16=["completed", "oom", "oom"], B4=["oom", *["completed"] * 2]))))
    assert "nan" not in text
    (one,) = summary(made(quality, {"strategy": ["A"], "rank": [16]}, seeds=1))[:1]
    assert one == "1 run in 1 cell over strategy, 1 seed: 1 completed. Throughout: rank 16."


def test_a_change_for_the_worse_is_not_called_an_improvement():
    assert "improved in 0 of 4 cells" in " ".join(summary(made(lambda cell, seed: 2.0 + quality(cell, seed))))


@pytest.mark.parametrize("seeds", [1, 2, 4])
@pytest.mark.parametrize("level", [0.0, 0.05])
def test_a_summary_is_short_and_has_no_holes(seeds, level):
    outcome = fates(A4=["oom", "diverged", "completed", "failed"], B16=["oom (predicted)"] * 4)
    text = summary(made(lambda cell, seed: quality(cell, seed, level, 0.02), seeds=seeds, memory=memory, outcome=outcome))
    assert 3 <= len(text) <= 7 and all(not sentence[0].islower() and sentence[-1] == "." for sentence in text)
    assert not any(word in " ".join(text) for word in ("nan", "is None", "  ", " inf", "-0"))


# --- the tables ---------------------------------------------------------------------------------------------------------------


def test_the_table_of_differences_lists_every_other_cell():
    table = whole(difference_table(made(quality, seeds=4, outcome=fates(A4=["oom"] * 4))))
    assert table.title == "Differences to the baseline (A, rank 16)"
    assert [c.name for c in table.columns] == ["metric", "strategy", "rank", "difference", "pairs", "p_holm", "verdict"]
    first, second, _ = texts(table)
    assert first == ["depth MAE, m\N{NO-BREAK SPACE}↓", "A", "4", "–", "0", "–", "OOM"]
    assert second[4] == "24" and second[5] == "<0.001" and second[6] == "better"
    number = table.rows[1].cells[3]
    assert len(number.runs) == 8 and 0 < number.half_width < -number.value and number.text == second[3]
    assert "paired by item and seed (6 items, 4 seeds)" in table.caption and "those of a seed one model" in table.caption


def test_every_metric_is_compared_by_itself_unless_that_is_too_much():
    results = made(quality, seeds=4)
    results.runs["metric.depth_rmse"] = np.arange(16) ** 2 + 0.5
    table = whole(difference_table(results))
    assert [row[0].split(",")[0] for row in texts(table)] == ["depth MAE"] * 3 + ["RMSE"] * 3
    assert [row[4] for row in texts(table)] == ["24"] * 3 + ["4"] * 3 and "RMSE by seed alone" in table.caption
    results = made(quality, {"strategy": ["A"], "rank": list(range(1, 200))}, seeds=2)
    results.runs["metric.depth_rmse"] = 1.0
    table = difference_table(results)
    assert len(table.rows) == 198 and "of the depth MAE alone" in table.caption


def test_captions_speak_of_what_is_in_the_table():
    caption = difference_table(made(quality, seeds=1)).caption
    assert "One seed: it holds for these trained weights" in caption and "one model" not in caption
    caption = difference_table(made(lambda cell, seed: quality(cell, seed).mean(), seeds=1)).caption
    assert caption.endswith("paired by seed. One pair gives no interval and no verdict.") and "p:" not in caption
    table = difference_table(made(quality, outcome=fates(A16=["oom"] * 3)))
    assert [row[3:] for row in texts(table)] == [["–", "0", "–", "no pair"]] * 3 and "No pair: " in table.caption
    assert difference_table(made(quality, baseline="null")) is None
    assert difference_table(made(quality, {"strategy": ["A"], "rank": [16]})) is None


def test_the_table_of_effects_has_quality_and_cost():
    table = whole(effect_table(made(quality, seeds=4, memory=memory)))
    strategy, rank = texts(table)
    assert strategy[:3] == ["strategy", "A → B", "8"] and strategy[6:8] == ["better", "−4.000 ± 0.000"]
    assert rank[1] == "16 → 4" and rank[6:8] == ["cannot be told apart", "−6.000 ± 0.000"]
    assert "The one two-way interaction cannot be told from zero." in table.caption
    assert effect_table(made(quality, {"strategy": ["A"], "rank": [16]})) is None


def test_interactions_that_are_told_are_listed():
    def both(cell, seed):
        return quality(cell, seed) - (0.2 if cell == {"strategy": "B", "rank": 4} else 0)

    table = whole(effect_table(made(both, seeds=4)))
    assert table.rows[2].kind == "group" and texts(table)[3][:2] == ["strategy × rank", "(A → B) × (16 → 4)"]
    assert texts(table)[3][6] == "told" and "the 1 of 1 with p < 0.05" in table.caption


def test_the_table_of_the_front():
    table = whole(pareto_table(made(quality, seeds=4, memory=memory, outcome=fates(A4=["oom"] * 4))))
    front = {tuple(row[:2]): row[-1] for row in texts(table)}
    assert (
        front["A", "4"] == "OOM" and front["B", "4"] == "on the front" and front["A", "16"].startswith("dominated by B, rank")
    )
    assert "of 3 cells on the front" in table.title and "Dominated: one is" in table.caption
    assert pareto_table(made(quality, outcome=lambda cell, seed: "oom")) is None
    assert "One seed gives no interval" in pareto_table(made(quality, seeds=1)).caption
