"""The tables say what the numbers say, and show every run whatever became of it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from conftest import STUDY
from report_study import CLAIMS, OOM, with_fates, write_study

from ablation.collect import collect
from ablation.files import write_csv
from ablation.report.results import MEMORY, CellResult, Results
from ablation.report.statistics import Estimate
from ablation.report.table import Table
from ablation.report.tables.cells import MEASURED_RESERVED, parameters, places, shown
from ablation.report.tables.claims import claim_table
from ablation.report.tables.components import component_table
from ablation.report.tables.costs import cost_table
from ablation.report.tables.items import item_table
from ablation.report.tables.ladder import ladder_table
from ablation.report.tables.main import main_table, metrics_table, shown_metrics
from ablation.report.tables.memory import memory_table
from ablation.report.tables.recommended import recommended_table
from ablation.report.tables.runs import out_of_memory, remark, run_table
from ablation.report.tables.splits import largest_difference, split_table
from ablation.settings import Metric
from ablation.study import load_study
from ablation.sweep import expand


def rows_of(table: Table, keys: int = 2):
    """The first cells of a row -> its cells by column, as text."""
    names = [column.name for column in table.columns]
    return {
        tuple(cell.text for cell in row.cells[:keys]): dict(zip(names, [cell.text for cell in row.cells], strict=True))
        for row in table.rows
    }


def cell_of(table: Table, row: int, name: str):
    return table.rows[row].cells[[column.name for column in table.columns].index(name)]


# --- the main table ----------------------------------------------------------------------------------------------------


def test_cells_are_means_over_seeds(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    assert [cell.label for cell in results.cells] == [f"{s}, rank {r}" for s in "ABC" for r in (4, 16)]
    assert results.cells[0].estimate("metric.depth_mae").mean == pytest.approx(0.505)
    table = main_table(results)
    assert table.rows[0].cells[0].text == "pretrained" and "1.200" in [cell.text for cell in table.rows[0].cells]
    assert [row.kind for row in table.rows] == ["before", "", "baseline", "", "", "", ""]
    assert cell_of(table, 1, "depth_mae").text == "0.505 ± 0.064"


def test_a_number_knows_its_interval_and_its_runs(tmp_path, demo_study):
    runs, results = write_study(tmp_path, demo_study)
    cell = cell_of(main_table(results), 1, "depth_mae")
    assert cell.value == pytest.approx(0.505) and cell.half_width == pytest.approx(0.0635, abs=1e-4)
    assert list(cell.runs) == [run.id for run in runs[:2]]


def test_the_main_table_has_at_most_nine_columns_and_the_rest_is_in_another(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    for number, metric in enumerate(results.metrics):
        results.runs[f"metric.{metric.name}"] = number + 0.1
    table, rest = main_table(results), metrics_table(results)
    assert len(table.columns) == 9 and len(results.metrics) == 7
    told = [metric.name for metric in shown_metrics(results)]
    assert [c.name for c in table.columns if c.name in told] == ["depth_mae", "depth_mae_planar"]
    assert [c.name for c in rest.columns[2:]] == [metric.name for metric in results.metrics[2:]]
    assert cell_of(rest, 1, "pose_auc30").value == pytest.approx(6.1)


def test_a_study_whose_metrics_all_fit_has_no_second_table(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    assert metrics_table(results) is None


def test_differences_to_the_baseline_stand_in_the_main_table(tmp_path):
    """Paired by seed: the seeds differ by more than the strategies, and the differences have hardly a spread."""
    study = load_study(STUDY, {"sweep": {"seed": [0, 1, 2]}})
    noise, gain = [0.3, -0.2, 0.1], {"A": 0.0, "B": 0.05, "C": -0.1}
    values = {
        run.id: 1 + noise[run.axes["seed"]] * (1 + 1e-3 * (run.axes["strategy"] == "B")) + gain[run.axes["strategy"]]
        for run in expand(study, "s")
    }
    _, results = write_study(tmp_path, study, mae=values)
    table = main_table(results)
    rows = rows_of(table)
    assert rows["A", "16"]["difference"] == "baseline" and rows["A", "4"]["difference"].startswith("0.000")
    assert rows["B", "16"]["difference"] == "+0.050 ± 0.001*" and rows["C", "16"]["difference"].startswith(
        "\N{MINUS SIGN}0.100"
    )
    assert cell_of(table, 4, "difference").value == pytest.approx(0.05, abs=1e-3)
    assert "*: p < 0.05, Holm-corrected." in table.caption


def test_bold_needs_an_interval_that_allows_it(tmp_path):
    """The best mean alone makes nothing bold: with the same noise in all cells no mark is given."""
    study = load_study(STUDY, {"sweep": {"seed": [0, 1, 2]}})
    rng = np.random.default_rng(0)
    noisy = {run.id: 0.5 + 0.1 * rng.normal() for run in expand(study, "s")}
    _, results = write_study(tmp_path / "noisy", study, mae=noisy)
    assert not any(cell_of(main_table(results), i, "depth_mae").best for i in range(1, 7))
    far = {run.id: (0.2 if run.axes["strategy"] == "C" else 0.9) + 1e-3 * rng.normal() for run in expand(study, "s")}
    _, results = write_study(tmp_path / "far", study, mae=far)
    assert [cell_of(main_table(results), i, "depth_mae").best for i in range(1, 7)] == [False] * 4 + [True] * 2


def test_the_time_of_an_epoch_comes_from_that_of_a_step(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    assert [c.head for c in main_table(results).columns][4] == "step, s\N{NO-BREAK SPACE}↓"
    results.runs["epochs"] = 0.02  # 5 steps of 0.1 s are a fiftieth
    table = main_table(results)
    assert table.columns[4].head == "epoch, s\N{NO-BREAK SPACE}↓" and cell_of(table, 1, "epoch_time").value == pytest.approx(25)
    results.runs["epochs"] = 0.0005
    table = main_table(results)
    assert table.columns[4].unit == "min" and cell_of(table, 1, "epoch_time").value == pytest.approx(1000 / 60)


def test_old_results_of_a_run_that_was_not_submitted_do_not_count(tmp_path, demo_study):
    """The same run was fine yesterday, with other data; today the plan calls it invalid."""
    write_study(tmp_path, demo_study)
    plan = pd.read_csv(tmp_path / "plan.csv")
    plan.loc[0, "verdict"] = "invalid"
    plan.to_csv(tmp_path / "plan.csv", index=False)
    table = collect(tmp_path / "plan.csv", tmp_path / "runs", ("fits", "tight"))
    assert table["outcome"].tolist() == ["invalid"] + ["completed"] * 11 and np.isnan(table.loc[0, "metric.depth_mae"])
    assert list(cell_of(main_table(Results(demo_study, table)), 1, "depth_mae").runs) == [table.loc[1, "run"]]


def test_a_study_of_which_nothing_ran_has_all_its_tables(tmp_path, demo_study):
    runs = expand(demo_study, "s")
    _, results = write_study(tmp_path, demo_study, {run.id: "invalid" for run in runs})
    assert [row["runs"] for row in rows_of(main_table(results)).values()][1:] == ["2 invalid"] * 6
    assert len(run_table(results).rows) == 12 and len(cost_table(results).rows) == 6 and item_table(results) is None


def test_an_axis_without_meaning_is_not_in_a_cell_s_name():
    assert CellResult({"strategy": "full", "rank": None, "batch": 8}, {}, []).label == "full, batch 8"


# --- costs, and runs that had no memory --------------------------------------------------------------------------------


def test_costs_of_a_cell(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    table = cost_table(results)
    assert rows_of(table)["A", "16"] == {
        "strategy": "A",
        "rank": "16",
        "trainable_params": "160",
        "trainable_share": "16.00%",
        "memory": "1.600",
        "step_time": "0.100",
        "samples_per_s": "–",
        "final_loss": "1.00",
    }
    assert cell_of(table, 1, "memory").half_width == 0  # known, and not printed as ± 0.000


def test_no_run_is_dropped_whatever_became_of_it(tmp_path, demo_study):
    runs = expand(demo_study, "s")
    fates = ["completed", "diverged", "oom", "oom (predicted)", "invalid", "not run"]
    _, results = write_study(tmp_path, demo_study, dict(zip((run.id for run in runs), fates, strict=False)))
    table = run_table(results)
    outcomes = {row.cells[0].text: row.cells[1].text for row in table.rows}
    assert [outcomes[run.id] for run in runs[:6]] == [fate.replace("oom", "OOM") for fate in fates]
    assert [row.kind for row in table.rows] == ["", *["bad"] * 5, *[""] * 6]
    remarks = [row.cells[-1].text for row in table.rows]
    assert remarks[1] == "non-finite loss" and remarks[4] == "because"
    assert [row["runs"] for row in rows_of(main_table(results)).values()][1] == "1 completed, 1 diverged"
    assert all(list(row.cells[0].runs) == [row.cells[0].text] for row in table.rows)


def test_what_a_run_was_diagnosed_with_is_its_remark():
    for outcome in ("diverged", "untrained"):
        assert remark({"outcome": outcome, "diagnosis": "no valid target", "reason": "needs 3 GiB"}) == "no valid target"


def test_out_of_memory_stands_in_place_of_the_numbers(tmp_path):
    results = with_fates(tmp_path, {("B", 4): ["oom"] * 3, ("B", 16): ["oom (predicted)"] * 3})
    main, costs = rows_of(main_table(results)), rows_of(cost_table(results))
    assert main["B", "4"]["depth_mae"] == main["B", "4"]["difference"] == "OOM" and main["B", "4"]["runs"] == "3 OOM"
    assert main["B", "16"]["depth_mae"] == "OOM (predicted)" and main["B", "16"]["runs"] == "3 OOM (predicted)"
    numbers = ("memory", "step_time", "samples_per_s", "final_loss")
    assert [costs["B", "4"][name] for name in numbers] == ["OOM"] * 4 and costs["B", "4"]["trainable_params"] == "40"
    assert [costs["B", "16"][name] for name in numbers] == ["OOM (predicted)"] * 4
    assert "OOM: out of memory on the rtx4090." in main_table(results).caption


def test_a_study_of_nothing_but_oom_still_says_so_in_its_main_table(tmp_path):
    results = with_fates(tmp_path, {(strategy, rank): ["oom"] * 3 for strategy in "ABC" for rank in (4, 16)})
    table = main_table(results)
    heads = {column.name: column.head for column in table.columns}
    assert heads["depth_mae"].startswith(results.primary.label) and "1.200" in [cell.text for cell in table.rows[0].cells]
    assert all(row["depth_mae"] == "OOM" for cell, row in rows_of(table).items() if cell[0] != "pretrained")


def test_seeds_that_ran_out_of_memory_are_counted_and_not_averaged(tmp_path):
    results = with_fates(tmp_path, {("B", 4): ["completed", "oom", "oom"]})
    main, costs = rows_of(main_table(results)), rows_of(cost_table(results))
    assert main["B", "4"]["runs"] == "2 OOM, 1 completed" and main["B", "4"]["memory"] == "0.400 (2 of 3 OOM)"
    assert costs["B", "4"]["memory"] == "0.400 (2 of 3 OOM)" and costs["B", "4"]["final_loss"] == "1.00"
    assert costs["A", "4"]["memory"] == "0.400"
    assert cell_of(cost_table(results), 2, "memory").value == pytest.approx(0.4)


REMARK = (
    "out of memory in backward of step 2: asked for 1.50 GiB with 21.90 allocated, 22.10 reserved of 23.14 GiB"
    " (emulated rtx4090)"
)


def test_a_run_s_remark_says_where_its_memory_ended(tmp_path):
    results = with_fates(tmp_path, {("B", 4): ["oom", "completed", "completed"]})
    (cells,) = [row.cells[1:] for row in run_table(results).rows if row.cells[1].text == "OOM"]
    assert [cell.text for cell in cells] == ["OOM", "–", "–", "0.100", REMARK]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, REMARK),
        ({"requested_gib": None}, "in backward of step 2: 21.90 allocated, 22.10 reserved of 23.14 GiB (em"),
        ({"reserved_gib": None, "allocated_gib": 0.0123}, "asked for 1.50 GiB with 0.0123 allocated of 23.14 GiB (em"),
        ({"phase": "load", "step": None}, "out of memory in load: asked"),
        ({"emulated": False}, "reserved of 23.14 GiB"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_left_out(known, words):
    row = {f"oom.{name}": value for name, value in {**OOM, **known}.items()} | {"memory.card": "rtx4090"}
    assert words in out_of_memory(row) and ("emulated" in out_of_memory(row)) == {**OOM, **known}["emulated"]


def test_times_of_runs_that_shared_a_card_are_marked(tmp_path):
    results = with_fates(tmp_path, {})
    tables = (main_table, cost_table)
    assert not any("shared" in make(results).caption for make in tables)
    results.runs["time.packed"] = [1.0] * 10 + [np.nan] * 3 + [2.0, 3.0] + [1.0] * 3
    apart = Results(results.study, results.runs)
    assert all("2 of 18 runs shared a card with others" in make(apart).caption for make in tables)


def test_memory_measured_under_another_card_s_budget_says_so(tmp_path):
    results = with_fates(tmp_path, {})
    assert results.memory_kind == "CUDA allocator, peak allocated, emulated rtx4090"
    assert all(
        "Memory: CUDA allocator, peak allocated, emulated rtx4090." in t(results).caption for t in (main_table, cost_table)
    )
    results.runs["memory.emulated"] = [False] * 6 + [True] * 12
    assert results.memory_kind == "CUDA allocator, peak allocated / CUDA allocator, peak allocated, emulated rtx4090"
    results.runs["memory.kind"] = "cpu"
    assert results.memory_kind == "CPU, peak of live tensors"


def test_numbers_are_as_short_as_they_tell():
    assert [parameters(count).text for count in (160, 21_000, 184_320, 1_262_624, 999_999, 1.19e9)] == [
        "160", "21 k", "184 k", "1.26 M", "1000 k", "1.19 G",
    ]  # fmt: skip
    assert parameters(1_262_624).value == 1_262_624
    assert shown(Estimate(0.5, 0.0004, 2), 3) == "0.500" and shown(Estimate(0.5, 0.0006, 2), 3) == "0.500 ± 0.001"
    assert [places([value]) for value in (1234.5, 12.3, 1.2, 0.1, 6.3e-5, 1e-12)] == [1, 1, 2, 3, 7, 7]
    assert places([0.0, float("nan"), None]) == 3


# --- memory ------------------------------------------------------------------------------------------------------------


def predicted(results: Results) -> Results:
    """The same with predictions: a quarter of a GiB for each rank."""
    runs = results.runs
    runs["predicted_reserved_gib"] = runs["rank"] / 4.0
    runs["predicted_gib"] = runs["predicted_reserved_gib"] + 0.5
    runs["frozen_weights_gib"], runs["activations_gib"] = 0.5, runs["rank"] / 4.0 - 0.5
    runs["gradients_gib"], runs["context_gib"], runs["peak_phase"] = 1e-5, 0.5, "backward"
    runs["memory_verdict"], runs["budget_gib"] = "fits", 23.64
    return Results(results.study, runs)


def test_plans_without_predictions_have_no_tables_of_memory(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    assert memory_table(results) is None and component_table(results) is None


def test_predicted_memory_stands_beside_what_was_measured(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    results = predicted(results)
    table = memory_table(results)
    assert "Nothing was measured on a CUDA device" in table.caption and "23.64 GiB" in table.caption
    assert rows_of(table)["A", "4"]["measured_reserved"] == rows_of(table)["A", "4"]["error"] == "–"
    results.runs[MEASURED_RESERVED] = results.runs["predicted_reserved_gib"] / 1.25
    table = memory_table(Results(demo_study, results.runs))
    assert rows_of(table)["A", "4"] == {
        "strategy": "A", "rank": "4", "needed": "1.500", "verdict": "fits", "predicted_reserved": "1.000",
        "measured_reserved": "0.800", "error": "+25.0%",
    }  # fmt: skip
    assert cell_of(table, 0, "error").value == pytest.approx(0.25)


def test_components_sum_to_the_whole_and_what_is_nothing_has_no_column(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    table = component_table(predicted(results))
    assert [column.name for column in table.columns[2:]] == ["frozen_weights", "activations", "context", "in_all", "peak_phase"]
    for row in table.rows:
        *parts, whole = [cell.value for cell in row.cells[2:-1]]
        assert sum(parts) == pytest.approx(whole)


RUNGS = [
    {"technique": "full fine-tuning in fp32", "predicted_allocated_gib": 16.0, "memory_verdict": "oom", "runs": ""},
    {"technique": "+ magic", "predicted_allocated_gib": "", "memory_verdict": "", "runs": ""},
    {"technique": "+ LoRA", "predicted_allocated_gib": 4.0, "memory_verdict": "fits", "runs": "{0} {1}"},
    {"technique": "+ ZeRO-2", "predicted_allocated_gib": 5.0, "memory_verdict": "fits", "runs": ""},
]


def test_each_rung_of_the_ladder_saves_against_the_one_above(tmp_path, demo_study):
    runs, results = write_study(tmp_path, demo_study)
    assert ladder_table(results, tmp_path) is None
    first = [run.id for run in runs[:2]]
    sizes = {"batch": 2, "accumulation": 1, "trainable_params": 1_262_624}
    write_csv(tmp_path / "ladder.csv", [{**rung, **sizes, "runs": rung["runs"].format(*first)} for rung in RUNGS])
    results.runs["memory.kind"] = "cpu"
    table = ladder_table(results, tmp_path)
    rows = [[cell.text for cell in row.cells] for row in table.rows]
    assert rows == [
        ["full fine-tuning in fp32", "1.26 M", "16.00", "–", "100%", "OOM"],
        ["+ magic (cannot be predicted)", "–", "–", "–", "–", "–"],
        ["+ LoRA", "1.26 M", "4.00", "12.00", "25%", "fits"],
        ["+ ZeRO-2", "1.26 M", "5.00", "\N{MINUS SIGN}1.00", "31%", "fits"],
    ]
    assert "batch 2" in table.caption and "200 M elements" in table.caption and "Measured" not in table.caption
    results.runs["memory.kind"], results.runs[MEMORY] = "cuda", 3.9
    table = ladder_table(results, tmp_path)
    assert [cell_of(table, i, "measured").text for i in range(4)] == ["–", "–", "3.90", "–"]
    assert list(cell_of(table, 2, "measured").runs) == first and "Measured" in table.caption


# --- items, claims, recommendations ------------------------------------------------------------------------------------


def test_items_show_each_strategy_before_and_after(tmp_path, demo_study):
    runs, results = write_study(tmp_path, demo_study, mae={run.id: float(run.rank) for run in expand(demo_study, "s")})
    table = item_table(results)
    assert [column.name for column in table.columns] == ["item", "before", "A", "B", "C"]
    assert [cell.text for cell in table.rows[0].cells] == ["yard", "1.200", "10.000", "10.000", "10.000"]
    assert list(table.rows[0].cells[2].runs) == [run.id for run in runs if run.axes["strategy"] == "A"]


def test_items_without_the_first_metric_show_the_next_that_they_have(tmp_path, demo_study):
    class Other(Results):
        def __init__(self, *args):
            super().__init__(*args)
            self.metrics = [Metric("nowhere", "N", "", False, 2), *self.metrics]

    _, results = write_study(tmp_path, demo_study)
    assert item_table(Other(demo_study, results.runs)).caption.startswith("Depth MAE in m of each held-out item")


def claim(verdict, source="the authors", **others):
    return {"claim": "c", "says": "it is good", "source": source, "claimed": "1", "ours": "", "basis": "", "verdict": verdict,
            "reason": "why", **others}  # fmt: skip


def test_refuted_claims_come_first_and_are_marked():
    table = claim_table([claim("not comparable"), claim("confirmed"), claim("refuted")])
    assert [row.cells[0].text for row in table.rows] == ["✗ refuted", "✓ confirmed", "– not comparable"]
    assert [row.kind for row in table.rows] == ["bad", "", "before"]
    assert [cell.text for cell in table.rows[0].cells[1:]] == ["it is good", "1", "–", "–", "why"]
    assert table.caption.startswith("Published by: the authors.")


def test_claims_of_several_sources_name_them_in_a_column():
    table = claim_table([claim("confirmed"), claim("confirmed", source="others")])
    assert [row.cells[-1].text for row in table.rows] == ["the authors", "others"] and "Published by" not in table.caption
    assert claim_table([]).rows == []


def test_published_claims_of_a_study(tmp_path, scene_root):
    data = {"source": "eth3d", "root": str(scene_root), "scenes": ["hall", "yard"], "split": {"test": ["yard"]}}
    write_study(tmp_path, load_study(STUDY, {"data": data}))
    table = claim_table(pd.read_csv(tmp_path / "claims.csv", keep_default_na=False).to_dict("records"))
    (refuted, other) = ([cell.text for cell in row.cells] for row in table.rows)
    assert refuted[:2] == ["✗ refuted", CLAIMS["images"].says] and "nobody weighs it" in other
    assert "Published by: a & b." in table.caption


def test_what_differs_from_the_recommended_configuration_is_marked(tmp_path, demo_study):
    study = demo_study.model_copy(update={"recommended": "vggt"})
    assert recommended_table(study, tmp_path) is None
    names = ("parameter", "yours", "recommended", "verdict", "advice", "why", "source")
    found = ("lr", "1e-3", "1e-4", "differs", "lr: 1e-4", "w", "s"), ("rank", "4, 16", "16", "swept", "", "", "s")
    rows = [dict(zip(names, row, strict=True)) for row in found]
    write_csv(tmp_path / "recommended.csv", rows)
    table = recommended_table(study, tmp_path)
    assert [row.kind for row in table.rows] == ["bad", ""] and table.rows[1].cells[3].text == "one of those swept"
    assert [cell.text for cell in table.rows[0].cells] == ["lr", "1e-3", "1e-4", "differs", "lr: 1e-4", "w"]
    assert table.caption == "Recommended by s."
    assert recommended_table(study.model_copy(update={"recommended": None}), tmp_path) is None


# --- ways to one effective batch ---------------------------------------------------------------------------------------


def test_splits_of_one_effective_batch_stand_together(tmp_path):
    sweep = {"strategy": ["A", "B"], "rank": 4, "batch": [4, 2, 8], "accumulation": [1, 2], "seed": [0, 1]}
    study = load_study(
        STUDY, {"sweep": sweep, "keep": "batch * accumulation in [4, 8]", "exclude": [{"batch": 8, "strategy": "B"}]}
    )
    runs, results = write_study(tmp_path, study)
    apart = next(run.id for run in runs if run.axes["batch"] == 4 and run.axes["accumulation"] == 2 and run.axes["seed"])
    table = results.runs
    table["curve.step"] = [[1.0, 2.0]] * len(table)
    table["curve.loss"] = [[2.0, 1.25] if run == apart else [2.0, 1.0] for run in table["run"]]
    table["curve.grad_norm"] = [[4.0, 1.0]] * len(table)
    table = split_table(Results(study, table))
    assert [column.head for column in table.columns[:3]] == ["batch × accum. × GPUs", "effective batch", "strategy"]
    assert {tuple(row.cells[i].text for i in (0, 1, 2, 4, 5)) for row in table.rows} == {
        ("4 × 1 × 1", "4", "A", "", ""), ("2 × 2 × 1", "4", "A", "0e+00", "0e+00"),
        ("4 × 1 × 1", "4", "B", "", ""), ("2 × 2 × 1", "4", "B", "0e+00", "0e+00"),
        ("4 × 2 × 1", "8", "A", "", ""), ("8 × 1 × 1", "8", "A", "2e-01", "0e+00"),
    }  # fmt: skip
    assert "at any step" in table.caption


def test_long_curves_are_compared_by_stretches_and_the_caption_says_so(tmp_path):
    study = load_study(STUDY, {"sweep": {"strategy": "A", "rank": 4, "batch": [4, 2], "accumulation": [1, 2], "seed": 0},
                               "keep": "batch * accumulation == 4"})  # fmt: skip
    _, results = write_study(tmp_path, study)
    results.runs["curve.step"] = [[5.0, 10.0, 12.0]] * 2  # 12 steps by fives: the last stretch is shorter
    results.runs["curve.loss"] = [[2.0, 1.0, 1.0]] * 2
    assert "of means over stretches of 5 steps" in split_table(Results(study, results.runs)).caption


def test_a_study_of_one_split_has_no_such_table(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    assert split_table(results) is None


def test_the_largest_difference_is_relative_and_over_common_steps():
    one = pd.DataFrame({"step": [1, 2, 3], "loss": [2.0, 1.0, 9.0]})
    assert largest_difference(one, pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.25]}), "loss") == pytest.approx(0.2)
    assert largest_difference(one, pd.DataFrame({"step": [7], "loss": [1.0]}), "loss") is None
    assert largest_difference(one, pd.DataFrame({"step": [1], "loss": [1.0]}), "grad_norm") is None


def test_every_table_is_rectangular_and_says_what_it_is(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study, {run.id: "oom" for run in expand(demo_study, "s")[:3]})
    results = predicted(results)
    made = [main_table(results), cost_table(results), memory_table(results), component_table(results), item_table(results)]
    for table in [*made, run_table(results), claim_table([claim("refuted")])]:
        assert table.title and table.caption.endswith(".") and dataclasses.is_dataclass(table)
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
        assert len({column.name for column in table.columns}) == len(table.columns)
    assert MEMORY in results.runs
