"""Studies as their jobs would leave them: what the tests of the report read."""

import json

import pandas as pd
from conftest import ROOT, STUDY

from ablation.claims.model import Claim
from ablation.claims.table import claim_table
from ablation.claims.verdicts import Judge
from ablation.collect import collect
from ablation.files import write_csv
from ablation.hardware import load_cards
from ablation.report.page.page import report_page
from ablation.report.results import Results
from ablation.report.study_report import report_of
from ablation.study import load_study
from ablation.sweep import all_axes, expand
from ablation.training.schedules import average_decay

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
        axes = all_axes(study, run)
        planned = {"invalid": "invalid", "oom (predicted)": "oom"}.get(verdict, "fits")
        rows.append({"run": run.id, **axes, **sizes, "verdict": planned, "reason": "because" if predicted else ""})
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
            **({"average_decay": average_decay(5, run.settings.training)} if run.settings.training.ema else {}),
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
            "objective": run.objective,
        }
        (target / "manifest.json").write_text(json.dumps(manifest))
    plan = folder / "plan.csv"
    pd.DataFrame(rows).to_csv(plan, index=False)
    table = collect(plan, folder / "runs", ("fits", "tight"))
    judge = Judge(study, runs, {row["run"]: row for row in table.to_dict("records")}, {}, load_cards(ROOT / "config/hardware"))
    write_csv(folder / "claims.csv", claim_table(CLAIMS, judge))
    return runs, Results(study, table)


def with_fates(tmp_path, fates):
    """The demo study with 3 seeds; ``fates`` by strategy and rank, three outcomes each. Through Parquet, as in earnest."""
    study = load_study(STUDY, {"sweep": {"seed": [0, 1, 2]}})
    outcomes = {
        run.id: fates.get((run.axes["strategy"], run.rank), ["completed"] * 3)[run.axes["seed"]] for run in expand(study, "s")
    }
    _, results = write_study(tmp_path, study, outcomes)
    results.runs.to_parquet(tmp_path / "runs.parquet")
    return Results(study, pd.read_parquet(tmp_path / "runs.parquet"))


def page_of(results, folder, name="s"):
    """The page of a study's report."""
    return report_page(report_of(results, name, folder))
