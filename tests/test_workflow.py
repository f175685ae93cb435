"""The workflow as its users run it: Snakemake on a copy of the project, from study to report."""

import csv
import os
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from peft import PeftConfig

from ablation.yamlfile import dump_yaml, load_yaml

MICRO = [
    "studies=vggt-eth3d",
    "data={scenes: [library, motorcycle], split: {test: [motorcycle]}}",
    "training={steps: 3}",
    "sweep={strategy: [A, C], rank: 4, seed: 0}",
]


FILES = {"run.yaml", "history.csv", "training.json", "metrics.json", "manifest.json", "trainer.log", "model.txt"}
RUN_FILES = FILES | {"adapter", "tensorboard", "pictures"}


def copy_project(target: Path) -> Path:
    """The project as git has it (with what is not ignored), or as it lies there when this is no checkout."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        shutil.copytree(ROOT, target, symlinks=True, ignore=shutil.ignore_patterns(".venv", "results", ".snakemake", ".git"))
        return target
    for name in listed.stdout.splitlines():
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            (target / name).symlink_to(source.readlink())
        elif source.is_file():
            shutil.copy2(source, target / name)
    return target


def snakemake(folder: Path, *arguments: str, config=(), timeout=600) -> subprocess.CompletedProcess:
    """Run Snakemake in ``folder``. The target comes first: --config swallows one that follows it."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--profile", "local", "-c2"]
    if config:
        command += ["--config", *config]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout, env=environment)


def jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from the statistics of a (dry) run."""
    lines = (done.stdout + done.stderr).splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("job ") and "count" in line), None)
    if start is None:
        return {}
    rows = (line.split() for line in lines[start + 2 : lines.index("", start)])
    return {name: int(count) for name, count in rows if name != "total"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clone") / "project")


@pytest.fixture(scope="module")
def finished(project):
    """The project after a very small study ran to its report."""
    done = snakemake(project, config=MICRO)
    assert done.returncode == 0, done.stderr[-3000:]
    return project / "results/demo/vggt-eth3d"


def test_from_photographs_to_report(finished):
    table = pd.read_parquet(finished / "runs.parquet")
    assert list(table["outcome"]) == ["completed", "completed"] and set(table["strategy"]) == {"A", "C"}
    assert (table["metric.depth_mae"] > 0).all() and (table["before.depth_mae"] > 0).all()
    assert pd.read_csv(finished / "runs.csv")["run"].tolist() == table["run"].tolist()
    page = unescape((finished / "report.html").read_text())
    assert all(run in page for run in table["run"]) and "<svg" in page and "data:image/png" in page
    claims = list(csv.DictReader((finished / "claims.csv").open()))
    assert claims and {row["verdict"] for row in claims} == {"not comparable"} and all(row["says"] in page for row in claims)
    for run in table["run"]:
        folder = finished / "runs" / run
        assert {path.name for path in folder.iterdir()} >= RUN_FILES
        assert PeftConfig.from_pretrained(str(folder / "adapter")).peft_type == "LORA"
        assert len(list(csv.DictReader((folder / "history.csv").open()))) == 3


def test_nothing_is_done_twice(finished, project):
    again = snakemake(project, config=MICRO)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr


def test_a_new_rank_runs_only_its_runs(finished, project):
    wider = [*MICRO[:3], "sweep={strategy: [A, C], rank: [2, 4, 8], seed: 0}"]
    planned = jobs(snakemake(project, "-n", config=wider))
    # The plan comes first, and with it the runs; until it is made, Snakemake knows only of it.
    once = {"all", "plan_study", "compare_config", "collect_runs", "check_claims", "write_report"}
    assert set(planned) <= {*once, "train_run", "evaluate_run"}
    snakemake(project, "plan", config=wider)
    planned = jobs(snakemake(project, "-n", config=wider))
    assert (
        planned["train_run"] == planned["evaluate_run"] == 4
        and "evaluate_base" not in planned
        and "prepare_part" not in planned
    )


def test_a_changed_value_reruns_the_runs_it_touches(finished, project):
    changed = [*MICRO, "strategies={C: {lr: 0.005}}"]
    snakemake(project, "plan", config=changed)
    planned = jobs(snakemake(project, "-n", config=changed))
    assert planned["train_run"] == 1 and "prepare_part" not in planned


def test_comments_and_evaluation_settings_retrain_nothing(finished, project):
    study = project / "config/studies/vggt-eth3d.yaml"
    before = study.read_text()
    study.write_text(
        "# a comment\n"
        + before.replace("    compute: {threads: 1,", "    evaluation: {pictures: 2}\n    compute: {threads: 1,")
    )
    try:
        snakemake(project, "plan", config=MICRO)
        planned = jobs(snakemake(project, "-n", config=MICRO))
    finally:
        study.write_text(before)
    assert "train_run" not in planned and planned["evaluate_run"] == 2 and planned["evaluate_base"] == 1


def test_a_run_that_diverges_is_a_result(finished, project):
    """A learning rate beyond reason: the job ends well, the run is reported as diverged, with its diagnosis."""
    done = snakemake(project, config=[*MICRO[:3], "sweep={strategy: A, rank: 4, seed: 5}", "strategies={A: {lr: 1e30}}"])
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = pd.read_parquet(finished / "runs.parquet").to_dict("records")
    assert row["outcome"] == "diverged" and row["diagnosis"].startswith("non-finite")
    assert "1 diverged" in (finished / "report.html").read_text()
    assert not (finished / "runs" / row["run"] / "adapter").exists()


def test_a_run_that_needs_more_than_its_card_has_is_a_result(finished, project):
    """A card of 50 MiB: the plan says so and submits nothing. If told to, it is tried: a real allocation of the real step
    fails, the workflow goes on, and the report says where it ended."""
    card = load_yaml(project / "config/hardware/rtx4090.yaml")
    small = {**card, "name": "A small card", "memory_gib": 0.6, "usable_gib": 0.55}
    (project / "config/hardware/small.yaml").write_text(dump_yaml(small))
    config = [*MICRO[:3], "hardware=small", "sweep={strategy: A, rank: 4, seed: 6}"]
    done = snakemake(project, config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "train_run" not in jobs(done)
    (row,) = pd.read_parquet(finished / "runs.parquet").to_dict("records")
    assert row["verdict"] == "oom" and row["outcome"] == "oom (predicted)" and row["predicted_gib"] > 0.55
    assert "OOM (predicted)" in (finished / "report.html").read_text()

    done = snakemake(project, config=[*config, "attempt_oom=true"])
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = pd.read_parquet(finished / "runs.parquet").to_dict("records")
    assert row["verdict"] == "oom" and row["outcome"] == "oom" and row["steps"] == 1
    assert row["oom.phase"] == "forward" and row["oom.step"] == 2 and row["oom.emulated"] and row["memory.card"] == "small"
    assert row["oom.budget_gib"] == row["memory.budget_gib"] == pytest.approx(0.05)
    assert row["oom.allocated_gib"] <= 0.05 < row["oom.allocated_gib"] + row["oom.requested_gib"]
    folder = finished / "runs" / row["run"]
    assert not (folder / "adapter").exists() and len(list(csv.DictReader((folder / "history.csv").open()))) == 1
    page = (finished / "report.html").read_text()
    assert ">OOM<" in page and "1 OOM" in page and "out of memory in forward of step 2: asked for " in page
    assert "of 0.05 GiB (emulated small)" in page


def test_own_scenes_in_the_layout_of_eth3d(project, scene_root):
    """A user's data by its path, with the options of the data and the loss in use, in bf16 with accumulation."""
    options = "target: dense, multi_scale: [56, 112]"
    config = [
        f"data={{source: eth3d, root: {scene_root}, scenes: [hall, yard], split: {{test: [yard]}}, {options}}}",
        "loss={window_weight: 2.0}",
        "training={steps: 2}",
        "sweep={strategy: B, rank: 2, seed: 0, batch: 1, accumulation: 2, precision: bf16}",
    ]
    done = snakemake(project, config=config)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (row,) = pd.read_parquet(project / "results/demo/vggt-eth3d/runs.parquet").to_dict("records")
    assert row["outcome"] == "completed" and row["effective_batch"] == 2 and row["metric.depth_mae"] > 0


def test_a_missing_scene_says_what_to_download(project, scene_root):
    config = [f"data={{source: eth3d, root: {scene_root}, scenes: [hall, office], split: {{test: [hall]}}}}"]
    done = snakemake(project, config=config)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "lacks the scenes office" in text and "Traceback" not in text
    assert "could be submitted" in text and "_dslr_undistorted.7z" in text


# One cell of each strategy: as many traces of the released network as a test has time for.
FULL = ["scale=full", "sweep={rank: 16, batch: 1, accumulation: 1, precision: bf16}", "keep=batch == 1"]


@pytest.fixture(scope="module")
def full_plan(project):
    """What the plan at full scale prints."""
    done = snakemake(project, "plan", config=FULL)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_full_scale_plan_needs_neither_data_nor_weights(full_plan, project):
    rows = list(csv.DictReader((project / "results/full/vggt-eth3d/plan.csv").open()))
    assert len(rows) == 9 and {row["verdict"] for row in rows} == {"invalid"}
    assert all("facade" in row["reason"] and "models/VGGT-1B/model.safetensors" in row["reason"] for row in rows)
    trained = {(row["strategy"], row["rank"]): int(row["trainable_params"]) for row in rows}
    assert trained["A", "16"] == 1_262_624 and trained["B", "16"] == 7_717_920 and trained["C", "16"] == 16_336_192
    assert "hf download facebook/VGGT-1B" in full_plan and "CC BY-NC-SA" in full_plan
    assert {(row["strategy"], row["memory_verdict"]) for row in rows} == {("A", "fits"), ("B", "fits"), ("C", "fits")}
    needed = {row["strategy"]: float(row["predicted_gib"]) for row in rows}
    assert 12 < needed["A"] < needed["B"] < needed["C"] < float(rows[0]["budget_gib"]) < 24


def test_the_plan_checks_what_was_published(full_plan, project):
    """Most of what was said of VGGT's parameters and memory is wrong; what needs runs or data says so."""
    rows = {row["claim"]: row for row in csv.DictReader((project / "results/full/vggt-eth3d/plan_claims.csv").open())}
    assert set(rows) == set(load_yaml(project / "config/claims/vggt-eth3d.yaml")["claims"])
    verdicts = {name: row["verdict"] for name, row in rows.items() if row["verdict"] != "not comparable"}
    wrong = ("params-a", "params-b", "params-c", "share-a", "share-b", "share-c", "memory-a", "memory-c")
    assert verdicts == {**dict.fromkeys(wrong, "refuted"), "memory-b": "confirmed"}
    assert (rows["params-a"]["claimed"], rows["params-a"]["ours"]) == ("8,000,000", "1,262,624")
    assert rows["images-facade"]["reason"] == "the data is not there" and rows["better"]["reason"] == "needs finished runs"
    assert "claims (8 refuted, 1 confirmed" in full_plan and "0.158 times what was published" in full_plan
    cards = list(csv.DictReader((project / "results/full/vggt-eth3d/cards.csv").open()))
    verdicts = {(row["strategy"], row["card"]): row["verdict"] for row in cards}
    assert verdicts["A", "rtx4090"] == verdicts["C", "h200-141"] == "fits"
    assert len(cards) == len(verdicts) == 3 * len({row["card"] for row in cards})


def test_full_scale_without_data_stops_with_the_reasons(project):
    done = snakemake(project, config=FULL)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "none of the 9 runs could be submitted" in text and "data/eth3d lacks the scenes" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (["studies=vggt-eth4d"], "did you mean vggt-eth3d"),
        (["sweep={rnk: [8]}"], "did you mean rank"),
        (["sweep={rank: [eight]}"], "sweep.rank[0] = 'eight': must be a whole number"),
        (["sweep={rank: []}"], "sweep.rank"),
        (["keep=batch * accumulation == 77"], "leave none"),
        (["keep=__import__('os').system('touch pwned')"], "not allowed in an expression"),
        (["sweep={rank: [8, 8]}"], "twice"),
        (["tranining={steps: 3}"], "did you mean training"),
        (["recommended=vgtt"], "did you mean vggt"),
        (["scale=huge"], "scale = 'huge': must be one of 'demo' or 'full'"),
        (["claims=vggt-eth4d"], "did you mean vggt-eth3d"),
    ],
)
def test_bad_input_stops_before_any_job(project, config, words):
    done = snakemake(project, config=config)
    assert done.returncode != 0 and words in done.stderr
    assert "Traceback" not in done.stderr and "File " not in done.stderr and "Building DAG" not in done.stderr
    assert done.stderr.count("error:") == 1 and not (project / "pwned").exists()


def test_overrides_of_the_command_line(project):
    sweep = "sweep={rank: [2, 8], strategy: A, batch: [1, 2], accumulation: [2, 4]}"
    done = snakemake(project, "plan", config=[sweep, "keep=batch * accumulation == 8"])
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(csv.DictReader((project / "results/demo/vggt-eth3d/plan.csv").open()))
    assert {(row["rank"], row["batch"], row["accumulation"]) for row in rows} == {("2", "2", "4"), ("8", "2", "4")}


def test_a_card_that_changes_is_planned_anew(project):
    config = ["sweep={rank: 4, strategy: A, seed: 0}", "hardware=changing"]
    card = (project / "config/hardware/rtx4090.yaml").read_text()
    verdicts = []
    for usable in ("23.64", "0.55"):
        (project / "config/hardware/changing.yaml").write_text(card.replace("usable_gib: 23.64", f"usable_gib: {usable}"))
        assert snakemake(project, "plan", config=config).returncode == 0
        (row,) = csv.DictReader((project / "results/demo/vggt-eth3d/plan.csv").open())
        verdicts.append(row["verdict"])
    assert verdicts == ["fits", "oom"]


def test_a_pattern_that_matches_nothing_stops_the_plan(project):
    done = snakemake(project, "plan", config=["strategies={A: {train: {lora: [depth_haed]}}}"])
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "did you mean depth_head" in text and "Traceback" not in text
