"""What the workflow says before any job: the full plan, what is missing, what is wrong in the input; and own data."""

import csv

import pandas as pd
import pytest
from workflow import copy_project, snakemake

from ablation.yamlfile import load_yaml

PLAN = "results/demo/vggt-eth3d/plan.csv"
ONE = "sweep={strategy: A, rank: 4, seed: 0}"
# One cell of each strategy, and no advice: as many traces of the released network as a test has time for.
FULL = ["scale=full", "sweep={rank: 16, batch: 1, accumulation: 1, precision: bf16}", "keep=batch == 1", "recommended=null"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clone") / "project")


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
    assert 4 < needed["A"] < 5 < needed["B"] < needed["C"] < 12 < float(rows[0]["budget_gib"]) < 24  # A keeps heads in the host


def test_the_plan_checks_what_was_published(full_plan, project):
    """Most of what was said of VGGT's parameters and memory is wrong; what needs runs or data says so."""
    rows = {row["claim"]: row for row in csv.DictReader((project / "results/full/vggt-eth3d/plan_claims.csv").open())}
    assert set(rows) == set(load_yaml(project / "config/claims/vggt-eth3d.yaml")["claims"])
    verdicts = {name: row["verdict"] for name, row in rows.items() if row["verdict"] != "not comparable"}
    wrong = ("params-a", "params-b", "params-c", "share-a", "share-b", "share-c", "memory-a", "memory-b", "memory-c")
    assert verdicts == dict.fromkeys(wrong, "refuted")
    assert (rows["params-a"]["claimed"], rows["params-a"]["ours"]) == ("8,000,000", "1,262,624")
    assert rows["images-facade"]["reason"] == "the data is not there" and rows["better"]["reason"] == "needs finished runs"
    assert "claims (9 refuted, 22 not comparable" in full_plan and "0.158 times what was published" in full_plan
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
        (["hardware=rtx4900"], "did you mean rtx4090"),
        (
            ["strategies={A: {train: {lora: [depth_haed]}}}"],
            "strategies.A.train.lora: the network has no 'depth_haed'; did you",
        ),
        (["sweep={rank: [8, 32]}"], "such as --config 'baseline={rank: 8}'"),
    ],
)
def test_bad_input_stops_before_any_job(project, config, words):
    done = snakemake(project, config=config)
    assert done.returncode != 0 and words in done.stderr
    assert "Traceback" not in done.stderr and "File " not in done.stderr and "Building DAG" not in done.stderr
    assert done.stderr.count("error:") == 1 and not (project / "pwned").exists()


def test_overrides_of_the_command_line(project):
    sweep = "sweep={rank: [2, 8], strategy: A, batch: [1, 2], accumulation: [2, 4]}"
    done = snakemake(project, PLAN, config=[sweep, "baseline={rank: 8}", "keep=batch * accumulation == 8"])
    assert done.returncode == 0, done.stderr[-2000:]
    told = "vggt-eth3d: planning for the NVIDIA GeForce RTX 4090\n"
    assert told in done.stderr and told in (project / "results/demo/vggt-eth3d/logs/plan.log").read_text()
    rows = list(csv.DictReader((project / PLAN).open()))
    assert {(row["rank"], row["batch"], row["accumulation"]) for row in rows} == {("2", "2", "4"), ("8", "2", "4")}


def test_a_card_that_changes_is_planned_anew(project):
    config = [ONE, "hardware=changing"]
    card = (project / "config/hardware/rtx4090.yaml").read_text()
    verdicts = []
    for usable in ("23.64", "0.55"):
        (project / "config/hardware/changing.yaml").write_text(card.replace("usable_gib: 23.64", f"usable_gib: {usable}"))
        assert snakemake(project, PLAN, config=config).returncode == 0
        (row,) = csv.DictReader((project / PLAN).open())
        verdicts.append(row["verdict"])
    assert verdicts == ["fits", "oom"]


def test_a_pattern_that_matches_nothing_stops_the_plan(project):
    done = snakemake(project, "plan", config=[ONE, "strategies={A: {train: {lora: [depth_head.scrach]}}}"])
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "did you mean scratch" in text and "tracing" not in text and "Traceback" not in text


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
    config = [f"data={{source: eth3d, root: {scene_root}, scenes: [hall, office], split: {{test: [hall]}}}}", ONE]
    done = snakemake(project, config=config)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "lacks the scenes office" in text and "Traceback" not in text
    assert "could be submitted" in text and "_dslr_undistorted.7z" in text
