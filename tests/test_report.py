"""The report says what the numbers say, shows every run whatever became of it, and needs nothing but itself."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, STUDY
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablation.claims.model import Claim
from ablation.claims.table import claim_table
from ablation.claims.verdicts import Judge
from ablation.collect import collect
from ablation.files import write_csv
from ablation.hardware import load_cards
from ablation.report import figures
from ablation.report.page import report_page
from ablation.report.results import CellResult, Results
from ablation.report.splits import largest_difference, splits_table
from ablation.report.statistics import estimate
from ablation.report.tables import cost_table, difference, main_table, out_of_memory, run_table
from ablation.report.words import summary
from ablation.settings import Metric
from ablation.study import load_study
from ablation.sweep import expand

BEFORE = 1.2
CLAIMS = {
    "weight": Claim(says="it weighs <b>3</b> kg", source="a & b", unchecked="nobody weighs it"),
    "images": Claim(says="it has 9 images", source="a & b", quantity="images", value=9),
}
MEMORY = {"kind": "cuda", "card": "rtx4090", "budget_gib": 23.14, "emulated": True}
OOM = {
    "phase": "backward", "step": 2, "requested_gib": 1.5, "allocated_gib": 21.9, "reserved_gib": 22.1,
    "budget_gib": 23.14, "emulated": True, "message": "CUDA out of memory. Tried to allocate 1.50 GiB.",
}  # fmt: skip


def write_study(folder, study, outcomes=None, mae=None):
    """Plan and results of a study as its jobs would leave them; ``outcomes`` and ``mae`` by run."""
    runs = expand(study, "s")
    rows = []
    for run in runs:
        verdict = (outcomes or {}).get(run.id, "completed")
        predicted = verdict in ("invalid", "oom (predicted)")
        sizes = {"effective_batch": run.effective_batch, "total_params": 1000, "trainable_params": 10 * (run.rank or 1)}
        planned = {"invalid": "invalid", "oom (predicted)": "oom"}.get(verdict, "fits")
        rows.append({"run": run.id, **run.axes, **sizes, "verdict": planned, "reason": "because" if predicted else ""})
        if predicted or verdict == "not run":
            continue
        done = verdict == "completed"
        value = (mae or {}).get(run.id, 0.5 + 0.01 * run.axes["seed"])
        target = folder / "runs" / run.id
        target.mkdir(parents=True)
        items = [{"item": "yard", "depth_mae": value}]
        content = {
            "outcome": verdict,
            "device": "cpu",
            "steps": 5,
            "final_loss": 1.0,
            "diagnoses": [] if done else [{"name": "non-finite loss", "step": 3}],
            "time": {"step_median_s": 0.1},
            "memory": {**MEMORY, "peak_allocated_gib": 0.1 * (run.rank or 1)},
            "metrics": {"depth_mae": value} if done else {},
            "items": items if done else [],
            "notes": {"alignment": "median"},
            "metrics_before": {"depth_mae": BEFORE},
            "items_before": [{"item": "yard", "depth_mae": BEFORE}],
        }
        if verdict == "oom":  # what was measured until then is kept, and is no measure of what the run needs
            content.update({"diagnoses": [], "oom": OOM, "memory": {**MEMORY, "peak_allocated_gib": 99.0}, "final_loss": 9.0})
        (target / "metrics.json").write_text(json.dumps(content))
        (target / "history.csv").write_text("step,loss\n1,2.0\n2,1.5\n3,1.0\n")
        manifest = {
            "code": {"commit": "0123456789abcdef", "changed": False},
            "python": "3.11",
            "packages": {"torch": "2.13.0"},
            "host": "node<1>",
            "cpu": "A CPU",
            "device": {"type": "cpu", "threads": 1},
        }
        (target / "manifest.json").write_text(json.dumps(manifest))
    plan = folder / "plan.csv"
    pd.DataFrame(rows).to_csv(plan, index=False)
    table = collect(plan, folder / "runs", ("fits", "tight"))
    judge = Judge(study, runs, {row["run"]: row for row in table.to_dict("records")}, {}, load_cards(ROOT / "config/hardware"))
    write_csv(folder / "claims.csv", claim_table(CLAIMS, judge))
    return runs, Results(study, table)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_intervals_are_scipy_s(values):
    found = estimate(values)
    spread = np.std(values, ddof=1) / np.sqrt(len(values))
    low, high = (
        stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread) if spread > 0 else (np.mean(values),) * 2
    )
    assert found.mean - found.half_width == pytest.approx(low, abs=1e-6) and found.mean + found.half_width == pytest.approx(
        high, abs=1e-6
    )


def test_coverage_of_the_interval_with_three_seeds():
    """Nominal 95 %: of 4,000 sets of three seeds the truth must lie in 94 to 96 %."""
    rng = np.random.default_rng(0)
    hits = sum(abs(found.mean) <= found.half_width for found in (estimate(rng.normal(size=3)) for _ in range(4000)))
    assert 0.94 < hits / 4000 < 0.96


def test_one_value_has_no_interval_and_none_no_estimate():
    assert estimate([3.0]) == (3.0, None, 1) and estimate([]) is None and estimate([float("nan")]) is None


def test_cells_are_means_over_seeds(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    assert [cell.label for cell in results.cells] == [f"{s}, rank {r}" for s in "ABC" for r in (4, 16)]
    assert results.cells[0].estimate("metric.depth_mae").mean == pytest.approx(0.505)
    table = main_table(results)
    assert table["rows"][0]["cells"][0] == "pretrained" and "1.200" in table["rows"][0]["cells"]
    assert [row["kind"] for row in table["rows"]] == ["before", "", "baseline", "", "", "", ""]


def test_costs_of_a_cell(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    table = cost_table(results)
    row = dict(zip(table["head"], table["rows"][1]["cells"], strict=True))
    assert row == {
        "strategy": "A",
        "rank": "16",
        "trained": "160",
        "share": "16.00%",
        "memory, GiB": "1.600 ± 0.000",
        "step, s": "0.100 ± 0.000",
        "samples/s": "–",
        "final loss": "1.000 ± 0.000",
    }


def test_no_run_is_dropped_whatever_became_of_it(tmp_path, demo_study):
    runs = expand(demo_study, "s")
    fates = ["completed", "diverged", "oom", "oom (predicted)", "invalid", "not run"]
    _, results = write_study(tmp_path, demo_study, dict(zip((run.id for run in runs), fates, strict=False)))
    shown = {row["cells"][0]["text"]: row["cells"][1] for row in run_table(results)["rows"]}
    assert [shown[run.id] for run in runs[:6]] == [fate.replace("oom", "OOM") for fate in fates]
    page = report_page(results, "s", tmp_path)
    assert all(word in page for word in ["1 completed, 1 diverged", "non-finite loss", "OOM (predicted)", "because"])


def with_fates(tmp_path, fates):
    """The demo study with 3 seeds; ``fates`` by strategy and rank, three outcomes each. Through Parquet, as in earnest."""
    study = load_study(STUDY, {"sweep": {"seed": [0, 1, 2]}})
    outcomes = {
        run.id: fates.get((run.axes["strategy"], run.rank), ["completed"] * 3)[run.axes["seed"]] for run in expand(study, "s")
    }
    _, results = write_study(tmp_path, study, outcomes)
    results.runs.to_parquet(tmp_path / "runs.parquet")
    return Results(study, pd.read_parquet(tmp_path / "runs.parquet"))


def rows_of(table):
    """Strategy and rank -> the row's cells as text, by column."""
    text = [[cell["text"] if isinstance(cell, dict) else cell for cell in row["cells"]] for row in table["rows"]]
    return {tuple(row[:2]): dict(zip(table["head"], row, strict=True)) for row in text}


def test_out_of_memory_stands_in_place_of_the_numbers(tmp_path):
    results = with_fates(tmp_path, {("B", 4): ["oom"] * 3, ("B", 16): ["oom (predicted)"] * 3})
    main, costs = rows_of(main_table(results)), rows_of(cost_table(results))
    metric = main_table(results)["head"][2]
    assert main["B", "4"][metric] == "OOM" and main["B", "4"]["runs"] == "3 OOM"
    assert main["B", "16"][metric] == "OOM (predicted)" and main["B", "16"]["runs"] == "3 OOM (predicted)"
    numbers = ("memory, GiB", "step, s", "samples/s", "final loss")
    assert [costs["B", "4"][name] for name in numbers] == ["OOM"] * 4 and costs["B", "4"]["trained"] == "40"
    assert [costs["B", "16"][name] for name in numbers] == ["OOM (predicted)"] * 4


def test_a_study_of_nothing_but_oom_still_says_so_in_its_main_table(tmp_path):
    results = with_fates(tmp_path, {(strategy, rank): ["oom"] * 3 for strategy in "ABC" for rank in (4, 16)})
    table = main_table(results)
    assert table["head"][2].startswith(results.primary.label) and "1.200" in table["rows"][0]["cells"]
    assert all(row[table["head"][2]] == "OOM" for cell, row in rows_of(table).items() if cell[0] != "pretrained")


def test_seeds_that_ran_out_of_memory_are_counted_and_not_averaged(tmp_path):
    results = with_fates(tmp_path, {("B", 4): ["completed", "oom", "oom"]})
    main, costs = rows_of(main_table(results)), rows_of(cost_table(results))
    assert main["B", "4"]["runs"] == "2 OOM, 1 completed"
    assert costs["B", "4"]["memory, GiB"] == "0.400 (2 of 3 OOM)" and costs["B", "4"]["final loss"] == "1.000"
    assert costs["A", "4"]["memory, GiB"] == "0.400 ± 0.000"
    assert "2 OOM" in summary(results)[0]


def test_few_seeds_left_are_called_few(tmp_path):
    """Three seeds were planned; where two of them ran out of memory everywhere, the report must not speak of three."""
    fates = ["completed", "oom", "oom"]
    results = with_fates(tmp_path, {(strategy, rank): fates for strategy in "ABC" for rank in (4, 16)})
    assert "With 1 seed a cell" in " ".join(summary(results))


REMARK = (
    "out of memory in backward of step 2: asked for 1.50 GiB with 21.90 allocated, 22.10 reserved of 23.14 GiB"
    " (emulated rtx4090)"
)


def test_a_run_s_remark_says_where_its_memory_ended(tmp_path):
    results = with_fates(tmp_path, {("B", 4): ["oom", "completed", "completed"]})
    (cells,) = [row["cells"][1:] for row in run_table(results)["rows"] if row["cells"][1] == "OOM"]
    assert cells == ["OOM", "–", "–", "0.100", REMARK]


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


def test_memory_measured_under_another_card_s_budget_says_so(tmp_path):
    results = with_fates(tmp_path, {})
    assert results.memory_kind == "CUDA allocator, peak allocated, emulated rtx4090"
    assert "Memory: CUDA allocator, peak allocated, emulated rtx4090." in report_page(results, "s", tmp_path)
    results.runs["memory.emulated"] = [False] * 6 + [True] * 12
    assert results.memory_kind == "CUDA allocator, peak allocated / CUDA allocator, peak allocated, emulated rtx4090"
    results.runs["memory.kind"] = "cpu"
    assert results.memory_kind == "CPU, peak of live tensors"


def test_a_curve_that_memory_cut_short_is_not_in_the_mean(tmp_path, monkeypatch):
    results = with_fates(tmp_path, {("B", 4): ["completed", "completed", "oom"]})
    seen = {}
    monkeypatch.setattr(figures, "loss_curves", lambda results, histories: seen.update(histories))
    page = report_page(results, "s", tmp_path)
    cut = results.runs.loc[results.runs["outcome"] == "oom", "run"].item()
    assert len(seen) == 17 and cut not in seen and cut in page


def test_old_results_of_a_run_that_was_not_submitted_do_not_count(tmp_path, demo_study):
    """The same run was fine yesterday, with other data; today the plan calls it invalid."""
    write_study(tmp_path, demo_study)
    plan = pd.read_csv(tmp_path / "plan.csv")
    plan.loc[0, "verdict"] = "invalid"
    plan.to_csv(tmp_path / "plan.csv", index=False)
    table = collect(tmp_path / "plan.csv", tmp_path / "runs", ("fits", "tight"))
    assert table["outcome"].tolist() == ["invalid"] + ["completed"] * 11 and np.isnan(table.loc[0, "metric.depth_mae"])


def test_a_study_of_which_nothing_ran_still_reports(tmp_path, demo_study):
    runs = expand(demo_study, "s")
    _, results = write_study(tmp_path, demo_study, {run.id: "invalid" for run in runs})
    assert "nothing to compare" in report_page(results, "s", tmp_path)


def test_sentences_follow_the_numbers(tmp_path, demo_study):
    runs = expand(demo_study, "s")
    values = {run.id: (0.4 if run.axes["strategy"] == "B" else 0.6) + 0.001 * run.axes["seed"] for run in runs}
    _, results = write_study(tmp_path, demo_study, mae=values)
    text = " ".join(summary(results))
    assert (
        "from 1.200 m before fine-tuning to 0.400 to 0.601 m" in text.replace("0.401", "0.400")
        and "improved in 6 of 6 cells" in text
    )
    assert "best mean is that of B, rank 4" in text and "cannot be told apart" not in text
    assert "With 2 seeds" in text


def test_what_cannot_be_told_apart_is_said(tmp_path, demo_study):
    rng = np.random.default_rng(1)
    _, results = write_study(tmp_path, demo_study, mae={run.id: 0.5 + rng.normal() * 0.1 for run in expand(demo_study, "s")})
    assert any("cannot be told apart" in sentence or "It is the baseline" in sentence for sentence in summary(results))


def test_a_change_for_the_worse_is_not_called_an_improvement(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study, mae={run.id: 2.0 for run in expand(demo_study, "s")})
    text = " ".join(summary(results))
    assert "improved in 0 of 6 cells" in text and "+67%" in text


def test_differences_are_paired_by_seed(tmp_path):
    study = load_study(STUDY, {"sweep": {"seed": [0, 1, 2]}})
    noise = [0.3, -0.2, 0.1]
    values = {run.id: 1 + noise[run.axes["seed"]] + (0.05 if run.axes["strategy"] == "B" else 0) for run in expand(study, "s")}
    _, results = write_study(tmp_path, study, mae=values)
    a, b = (next(c for c in results.cells if c.label == f"{s}, rank 16") for s in "AB")
    found = difference(results, b, a)
    assert found.mean == pytest.approx(0.05) and found.half_width < 1e-9


def test_the_page_is_self_contained_and_escapes_everything(tmp_path, demo_study):
    evil = load_study(STUDY, {"title": '<script>alert(1)</script> & "co"'})
    _, results = write_study(tmp_path, evil)
    page = report_page(results, "s", tmp_path)
    assert "<script" not in page and "&lt;script&gt;" in page and "node&lt;1&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:|runs/|#)[^"]*"', page)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|https?://www\.eth3d[^\s<]*', "", page)
    assert page.count("<figure>") == 3 and "NaN" not in page and "nan" not in re.findall(r"<td[^>]*>([^<]*)", page)


def test_published_claims_stand_in_the_report(tmp_path, scene_root):
    """The refuted one first and marked, with what is ours; a study that names no claims has no such section."""
    data = {"source": "eth3d", "root": str(scene_root), "scenes": ["hall", "yard"], "split": {"test": ["yard"]}}
    _, results = write_study(tmp_path, load_study(STUDY, {"data": data}))
    page = report_page(results, "s", tmp_path)
    section = page[page.index("<h2>Published claims") :]
    refuted, other = section.index("✗ refuted"), section.index("– not comparable")
    assert refuted < other and section.rindex('class="bad"', 0, refuted) > 0
    assert all(
        words in section
        for words in ("it has 9 images", "nobody weighs it", "it weighs &lt;b&gt;3&lt;/b&gt; kg", "by: a &amp; b")
    )
    _, results = write_study(tmp_path / "without", load_study(STUDY, {"claims": "null"}))
    assert "Published claims" not in report_page(results, "s", tmp_path / "without")


def test_higher_can_be_better(tmp_path, demo_study):
    class Upwards(Results):
        def __init__(self, *args):
            super().__init__(*args)
            self.metrics = [Metric("depth_mae", "score", "", False, 2)]
            self.primary = self.metrics[0]

    _, results = write_study(tmp_path, demo_study, mae={run.id: float(run.rank) for run in expand(demo_study, "s")})
    upwards = Upwards(demo_study, results.runs)
    assert upwards.best().label == "A, rank 16" and "improved in 6 of 6" in " ".join(summary(upwards))


# --- ways to one effective batch ---------------------------------------------------------------------------------------


def test_splits_of_one_effective_batch_stand_together(tmp_path):
    sweep = {"strategy": ["A", "B"], "rank": 4, "batch": [4, 2, 8], "accumulation": [1, 2], "seed": [0, 1]}
    study = load_study(
        STUDY, {"sweep": sweep, "keep": "batch * accumulation in [4, 8]", "exclude": [{"batch": 8, "strategy": "B"}]}
    )
    runs, results = write_study(tmp_path, study)
    histories = {run.id: pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "grad_norm": [4.0, 1.0]}) for run in runs}
    apart = next(run.id for run in runs if run.axes["batch"] == 4 and run.axes["accumulation"] == 2 and run.axes["seed"])
    histories[apart].loc[1, "loss"] = 1.25
    table = splits_table(results, histories)
    shown = [(row["cells"][0], row["cells"][1], row["cells"][2], *row["cells"][4:6]) for row in table["rows"]]
    assert table["head"][:3] == ["batch × accum. × GPUs", "effective batch", "strategy"]
    assert set(shown) == {
        ("4 × 1 × 1", "4", "A", "", ""), ("2 × 2 × 1", "4", "A", "0e+00", "0e+00"),
        ("4 × 1 × 1", "4", "B", "", ""), ("2 × 2 × 1", "4", "B", "0e+00", "0e+00"),
        ("4 × 2 × 1", "8", "A", "", ""), ("8 × 1 × 1", "8", "A", "2e-01", "0e+00"),
    }  # fmt: skip


def test_an_axis_without_meaning_is_not_in_a_cell_s_name():
    assert CellResult({"strategy": "full", "rank": None, "batch": 8}, pd.DataFrame()).label == "full, batch 8"


def test_a_study_of_one_split_has_no_such_table(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    assert splits_table(results, {}) is None


def test_the_largest_difference_is_relative_and_over_common_steps():
    one = pd.DataFrame({"step": [1, 2, 3], "loss": [2.0, 1.0, 9.0]})
    assert largest_difference(one, pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.25]}), "loss") == pytest.approx(0.2)
    assert largest_difference(one, pd.DataFrame({"step": [7], "loss": [1.0]}), "loss") is None
