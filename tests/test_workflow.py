"""The workflow from study to report, and what it does again when the study changes."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from html import unescape
from zipfile import ZipFile

import pandas as pd
import pytest
from faults import survived
from huggingface_hub import ModelCard
from peft import PeftConfig
from test_faults import outcome
from test_report_page import data_of
from workflow import TWO_SCENES, copy_project, jobs, snakemake

from ablation.attempts import Journal
from ablation.formats import SCHEMA
from ablation.yamlfile import dump_yaml, load_yaml

MICRO = [
    "studies=vggt-eth3d",
    TWO_SCENES,
    "training={steps: 3}",
    "sweep={strategy: [A, C], rank: 4, seed: 0}",
    "baseline={rank: 4}",
]


PLAN = "results/demo/vggt-eth3d/plan.csv"
FILES = {"run.yaml", "history.csv", "training.json", "metrics.json", "manifest.json", "trainer.log", "model.txt"}
RUN_FILES = FILES | {"adapter", "tensorboard", "pictures"}


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
    assert all(run in page for run in table["run"]) and "data:image/svg+xml" in page and "data:image/webp" in page
    claims = list(csv.DictReader((finished / "claims.csv").open()))
    assert claims and {row["verdict"] for row in claims} == {"not comparable"} and all(row["says"] in page for row in claims)
    for run in table["run"]:
        folder = finished / "runs" / run
        assert {path.name for path in folder.iterdir()} >= RUN_FILES
        assert PeftConfig.from_pretrained(str(folder / "adapter")).peft_type == "LORA"
        assert len(list(csv.DictReader((folder / "history.csv").open()))) == 3


def test_what_is_frozen_was_computed_once(finished):
    """A and C see the same images: all of them are kept at both cuts."""
    (log,) = (finished / "logs/prefix").glob("*.log")
    kept = re.findall(r"(\d+) of (\d+) (held-out|training) inputs kept, at the cuts \[0, 4\]", log.read_text())
    assert [what for *_, what in kept] == ["held-out", "training"] and all(some == every for some, every, _ in kept)


def test_every_number_leads_to_the_manifest_of_its_run(finished):
    """A cell of the page names its runs, a run's details link to its manifest, and the table has its origin from there."""
    table = pd.read_parquet(finished / "runs.parquet")
    runs = {run["id"]: run for run in data_of((finished / "report.html").read_text())}
    for row in table.to_dict("records"):
        link = runs[row["run"]]["links"]["origin"]
        manifest = json.loads((finished / link).read_text())
        assert link == f"runs/{row['run']}/manifest.json" and manifest["run"] == row["run"] and manifest["schema"] == SCHEMA
        told = {"host", "cpu", "python", "written", "energy_j"} & set(manifest)
        assert {name: row[f"origin.{name}"] for name in told} == {name: manifest[name] for name in told}
        assert row["origin.times.seconds"] == manifest["times"]["seconds"] > 0
        assert row["origin.program_sha256"] == manifest["code"]["program_sha256"] and len(manifest["files"]) == 3


def test_a_run_trained_again_is_the_same_bit_by_bit_and_what_was_tampered_with_is_found(finished, project):
    run, other = sorted(path.name for path in (finished / "runs").iterdir())
    choice = ["reference=results/demo/vggt-eth3d", f"runs={run}"]
    done = snakemake(project, "verify", config=choice)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert jobs(done) == {"evaluate_base": 1, "train_run": 1, "verify": 1}
    rows = {row["run"]: row for row in csv.DictReader((finished / "verified/verified.csv").open())}
    assert set(rows) == {run, "(tables)"} and {row["verdict"] for row in rows.values()} == {"equal"}
    assert rows[run]["trained weights"] == rows[run]["losses"] == rows[run]["runs.parquet"] == "equal"
    assert len((finished / "verified/runs" / run / "history.csv").read_text().splitlines()) == 4

    tampered = finished / "runs" / other / "metrics.json"  # of a run that is not trained again
    before = tampered.read_text()
    tampered.write_text(before.replace('"depth_mae": 0.', '"depth_mae": 0.9', 1))
    try:
        done = snakemake(project, "verify", config=["studies=vggt-eth3d", *MICRO[1:], f"runs={run}"])
    finally:
        tampered.write_text(before)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and jobs(done) == {"verify": 1}, said[-3000:]
    assert f"differs  {other}" in said and f"equal    {run}" in said and "metric.depth_mae" in said
    assert (finished / "verified/runs" / run / "metrics.json").is_file() and "differs" in (
        finished / "verified/verified.csv"
    ).read_text()
    shutil.rmtree(finished / "verified")


def test_all_forms_of_the_report_are_there_and_snakemake_s_own_carries_them(finished, project):
    assert (finished / "report.pdf").read_bytes().startswith(b"%PDF") and "vggt-eth3d" in (
        project / "results/index.html"
    ).read_text()
    tables, figures = ({path.name for path in (finished / kind).iterdir()} for kind in ("tables", "figures"))
    assert {"main.csv", "main.md", "main.tex", "ladder.csv"} <= tables
    assert {"quality-memory.pdf", "quality-memory.svg", "quality-memory.png"} <= figures
    done = snakemake(project, "--report", "own.zip", config=MICRO)
    assert done.returncode == 0, done.stderr[-3000:]
    with ZipFile(project / "own.zip") as archive:
        carried = {name.rpartition("/")[2] for name in archive.namelist()}
    assert carried >= {name for name in tables | figures if name.endswith((".csv", ".svg"))} | {"report.pdf", "index.html"}


def test_nothing_is_done_twice(finished, project):
    again = snakemake(project, config=MICRO)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr


@pytest.fixture(scope="module")
def elsewhere(finished, project, tmp_path_factory):
    """The project on another machine: results were copied, with other times and in another order, ``.snakemake`` was not."""
    there = copy_project(tmp_path_factory.mktemp("elsewhere") / "project")
    paths = sorted((path for path in (project / "results").rglob("*") if "traces" not in path.parts), reverse=True)
    for path in (path for path in paths if path.is_file()):
        target = there / path.relative_to(project)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for path in (there / "resources").rglob("*"):
        path.touch()
    return there


@pytest.mark.fault
def test_times_and_places_retrain_nothing(elsewhere):
    begun = time.monotonic()
    done = snakemake(elsewhere, "-n", config=MICRO)
    assert done.returncode == 0 and "2 runs: 2 finished; no optimizer step is taken" in done.stderr, done.stderr[-3000:]
    assert not {"train_run", "evaluate_base", "prepare_part", "plan_study"} & set(jobs(done))
    how = {"seconds": time.monotonic() - begun, "repeated": 0, "same": "untouched"}
    seen = "“2 runs: 2 finished; no optimizer step is taken”; the report alone is made again"
    survived("results copied to another machine", "local", seen=seen, **how)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sweep={strategy: [A, C], rank: [4, 8], seed: 0}", "4 runs: 2 finished, 2 to be trained; 6 optimizer steps"),
        ("sweep={strategy: A, rank: 4, seed: 0}", "1 run: 1 finished; no optimizer step is taken"),
        ("strategies={A: {lr: 1e-3}}", "2 runs: 1 finished, 1 to be trained again; 3 optimizer steps"),
        ("title=another", "2 runs: 2 finished; no optimizer step is taken"),
    ],
)
def test_a_plan_of_another_version_of_the_study_is_made_again(elsewhere, change, said):
    """Snakemake remembers nothing here: that the plan is of another study is found in the plan."""
    begun = time.monotonic()
    done = snakemake(elsewhere, "-n", config=[*(one for one in MICRO if not change.startswith(one[:6])), change])
    assert done.returncode == 0 and said in done.stderr and jobs(done)["plan_study"] == 1, done.stderr[-3000:]
    if "lr" in change:
        assert "1 trained again, and replaced: strategies.A.lr 0.002 -> 0.001" in done.stderr
        assert "leave strategies.A.lr as it was and add sweep: {strategies.A.lr: [0.002, 0.001]}" in done.stderr
    seen = f"the plan is made again; “{said}”"
    how = {"seconds": time.monotonic() - begun, "repeated": 0, "same": "no result is touched before the plan"}
    survived("edited study, without .snakemake", "local", seen=seen, **how)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("strategies={A: {train: {lora: [camera_head]}}}", "1 trained again, and replaced: strategies.A.train.lora ["),
        (None, "error: results/demo/vggt-eth3d/runs/"),
    ],
    ids=["a list", "a damaged manifest"],
)
def test_what_goes_wrong_in_a_look_is_never_nothing_to_be_done(elsewhere, change, said):
    """Snakemake takes a file whose input function fails, and which exists, for one that no rule makes."""
    manifest = min((elsewhere / "results/demo/vggt-eth3d/runs").glob("A-*")) / "manifest.json"
    before = manifest.read_text()
    if change is None:
        manifest.write_text('{"settings": [], "settings_sha256": "", "inputs": {}}')
    try:
        done = snakemake(elsewhere, "-n", config=[*MICRO, *filter(None, [change])])
    finally:
        manifest.write_text(before)
    assert said in done.stderr and "Nothing to be done" not in done.stdout + done.stderr, done.stderr[-2000:]
    assert (done.returncode == 0) == (change is not None) and "Traceback" not in done.stderr


def test_results_stand_when_what_they_were_trained_on_is_gone(elsewhere):
    """Weights removed to save disk: a plan made again calls the finished runs neither invalid nor to be trained."""
    weights = elsewhere / "resources/vggt-demo.safetensors"
    weights.rename(weights.with_suffix(".away"))
    try:
        done = snakemake(elsewhere, config=[*MICRO, "title=later"])
    finally:
        weights.with_suffix(".away").rename(weights)
    assert done.returncode == 0 and not {"train_run", "evaluate_base"} & set(jobs(done)), done.stderr[-3000:]
    assert "2 runs: 2 finished; no optimizer step is taken" in done.stderr and "missing: resources/vggt-demo" in done.stderr
    results = elsewhere / "results/demo/vggt-eth3d"
    table = pd.read_parquet(results / "runs.parquet")
    assert list(table["outcome"]) == ["completed", "completed"] and (table["metric.depth_mae"] > 0).all()
    assert set(table["reason"]) == {"finished; weights: resources/vggt-demo.safetensors is not there"}
    assert "later" in (results / "report.html").read_text()


@pytest.mark.fault
def test_a_run_that_is_gone_is_trained_again_and_nothing_else(finished, project):
    """Purged, or removed to have it trained again: between a plan and a report that are up to date."""
    run, purged = min((finished / "runs").iterdir()), finished / "purged"
    begun = time.monotonic()
    run.rename(purged)
    done = snakemake(project, config=MICRO)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 runs: 1 finished, 1 to be trained; 3 optimizer steps" in done.stderr
    assert jobs(done)["train_run"] == 1 and not {"evaluate_base", "prepare_part", "plan_study"} & set(jobs(done))
    assert outcome(run) == outcome(purged)
    shutil.rmtree(purged)
    seen = "“1 finished, 1 to be trained”; that run is trained"
    survived("purged run folder", "local", seen=seen, seconds=time.monotonic() - begun, repeated=3, same="bit for bit")


@pytest.mark.fault
def test_a_deleted_plan_is_made_again_and_retrains_nothing(finished, project):
    plan, begun = finished / "plan.csv", time.monotonic()
    before = plan.read_text()
    plan.unlink()
    done = snakemake(project, "plan", config=MICRO)
    assert done.returncode == 0 and plan.read_text() == before, done.stderr[-3000:]
    assert "2 runs: 2 finished; no optimizer step is taken" in done.stdout and "Params have changed" not in done.stdout
    seconds = time.monotonic() - begun
    survived(
        "deleted plan", "local", seen="nothing: it is made again", seconds=seconds, repeated=0, same="the plan, byte for byte"
    )


@pytest.mark.fault
def test_a_job_that_was_sent_trains_the_study_as_it_was_sent(finished, project):
    """While it waited, the study was edited, and its file and the configuration are in the middle of an edit."""
    run = max((finished / "runs").iterdir())
    study, config, begun = project / "config/studies/vggt-eth3d.yaml", project / "config/config.yaml", time.monotonic()
    before = study.read_text(), config.read_text()
    study.write_text(before[0].replace("lr: 2.0e-3", "lr: 7.0e-3") + "a: b: c")
    config.write_text(before[1] + "a: b: c")
    undisturbed = finished / "undisturbed"
    run.rename(undisturbed)
    job = f"train_run:scale=demo,study=vggt-eth3d,run={run.name}"
    # As Snakemake's executors call it on a node.
    command = [sys.executable, "-m", "snakemake", "--mode", "remote", "--cores", "1", "--target-jobs", job, "--force"]
    command += ["--nolock", "--allowed-rules", "train_run", "--target-files-omit-workdir-adjustment", "--ignore-incomplete"]
    try:
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    finally:
        study.write_text(before[0])
        config.write_text(before[1])
    assert done.returncode == 0, done.stderr[-3000:]
    assert outcome(run) == outcome(undisturbed) and (run / "metrics.json").is_file()
    assert load_yaml(run / "run.yaml") == load_yaml(undisturbed / "run.yaml"), "the rate as it was when the job was sent"
    shutil.rmtree(run)
    undisturbed.rename(run)  # what its report was made from
    gone = subprocess.run([f"{job}x" if word == job else word for word in command], cwd=project, capture_output=True, text=True)
    assert gone.returncode != 0 and f"error: the study vggt-eth3d has no run {run.name}x (any more)" in gone.stderr
    assert "KeyError" not in gone.stderr
    seen = "nothing: jobs that were sent take the study as it was then"
    survived(
        "study edited while its jobs queue",
        "local",
        seen=seen,
        seconds=time.monotonic() - begun,
        repeated=0,
        same="bit for bit",
    )


def test_the_finished_study_is_given_away_and_comes_back_equal(finished, project, tmp_path):
    """With its model cards, as a crate by Snakemake and as an archive; restored elsewhere, its report is made again."""
    for adapter in (finished / "runs").glob("*/adapter"):
        card = ModelCard.load(adapter / "README.md")
        metrics = json.loads((adapter.parent / "metrics.json").read_text())["metrics"]
        assert {result.metric_type: result.metric_value for result in card.data.eval_results}.items() <= metrics.items()
    done = snakemake(project, "crate", config=MICRO)
    assert done.returncode == 0 and jobs(done) == {"crate": 1, "write_crate": 1}, done.stderr[-3000:]
    crate = json.loads((finished / "crate/ro-crate-metadata.json").read_text())
    assert {"runs.parquet", "report.html", "#study"} <= {entity["@id"] for entity in crate["@graph"]}
    for command in (["archive_study.py", "--folder", finished.relative_to(project), "--output", tmp_path / "study.tar.gz"],
                    ["restore_study.py", tmp_path / "study.tar.gz", "--results", tmp_path / "results"]):  # fmt: skip
        command = [sys.executable, f"scripts/{command[0]}", *command[1:]]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    restored = tmp_path / "results/demo/vggt-eth3d"
    for name in ("tables/main.csv", "figures/panels.png", "runs.parquet", "report.pdf"):
        assert (restored / name).read_bytes() == (finished / name).read_bytes()


def test_a_new_rank_runs_only_its_runs(finished, project):
    wider = [*MICRO[:3], "sweep={strategy: [A, C], rank: [4, 8], seed: 0}", MICRO[-1]]
    planned = jobs(snakemake(project, "-n", config=wider))
    # The plan comes first, and with it the runs; until it is made, Snakemake knows only of it.
    once = {"all", "plan_study", "predict_ladder", "compare_config", "collect_runs", "check_claims", "write_report"}
    once.add("write_index")
    assert set(planned) <= {*once, "train_run"}
    snakemake(project, PLAN, config=wider)
    planned = jobs(snakemake(project, "-n", config=wider))
    assert planned["train_run"] == 2 and "evaluate_base" not in planned and "prepare_part" not in planned


def test_a_changed_value_reruns_the_runs_it_touches(finished, project):
    changed = [*MICRO, "strategies={C: {lr: 0.005}}"]
    snakemake(project, PLAN, config=changed)
    planned = jobs(snakemake(project, "-n", config=changed))
    assert planned["train_run"] == 1 and "prepare_part" not in planned


def test_comments_and_evaluation_settings_retrain_nothing(finished, project):
    """Nor does an edited script: the job finds what is trained, and evaluates it, to the bit as the job that had trained it."""
    study, program = project / "config/studies/vggt-eth3d.yaml", project / "scripts/train_run.py"
    before, code = study.read_text(), program.read_text()
    study.write_text(
        "# a comment\n"
        + before.replace("    compute: {threads: 1,", "    evaluation: {pictures: 2}\n    compute: {threads: 1,")
    )
    program.write_text(code + "# a comment\n")
    runs = [path.parent for path in finished.glob("runs/*/metrics.json")]
    kept = ("history.csv", "training.json", "metrics.json", "adapter/README.md")
    was = {run: [(run / name).read_text() for name in kept] for run in runs}
    pictures = {run: {path.name for path in (run / "pictures").iterdir()} for run in runs}
    for path in (path for run in runs for path in (run / "pictures").iterdir()):
        path.unlink()
    try:
        done = snakemake(project, config=MICRO)
    finally:
        study.write_text(before)
        program.write_text(code)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(runs) == 2
    for run in runs:
        assert "is trained already" in (finished / f"logs/train/{run.name}.log").read_text()
        assert [(run / name).read_text() for name in kept] == was[run]
        assert [event["event"] for event in Journal(run).events()].count("start") == 1
        told = json.loads((run / "manifest.json").read_text())
        assert len(told["attempts"]) == 1 and told["settings"]["settings"]["evaluation"]["pictures"] == 2
        assert {path.name for path in (run / "pictures").iterdir()} <= pictures[run]


def test_a_run_that_diverges_is_a_result(finished, project):
    """A learning rate beyond reason: the job ends well, the run is reported as diverged, with its diagnosis."""
    done = snakemake(project, config=[*MICRO[:3], "sweep={strategy: A, rank: 4, seed: 5}", "strategies={A: {lr: 1e30}}"])
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = pd.read_parquet(finished / "runs.parquet").to_dict("records")
    assert row["outcome"] == "diverged" and row["diagnosis"].startswith("non-finite")
    assert "1 diverged" in (finished / "report.html").read_text()
    assert not (finished / "runs" / row["run"] / "adapter").exists()


def test_a_run_that_learns_nothing_is_a_result(finished, project):
    """A learning rate that no weight can take up: the run is reported as untrained, with its diagnosis, and never repeated."""
    config = [*MICRO[:3], "sweep={strategy: A, rank: 4, seed: 7}", "strategies={A: {lr: 1e-60}}"]
    done = snakemake(project, config=config)
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = pd.read_parquet(finished / "runs.parquet").to_dict("records")
    assert (row["outcome"], row["diagnosis"]) == ("untrained", "weights unchanged")
    assert not any(name.startswith("metric.") and pd.notna(row[name]) for name in row)
    page = (finished / "report.html").read_text()
    assert "1 untrained" in page and "weights unchanged" in page
    assert not (finished / "runs" / row["run"] / "adapter").exists()
    assert "train_run" not in jobs(snakemake(project, "-n", config=config))


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
