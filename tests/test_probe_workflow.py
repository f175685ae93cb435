"""`snakemake probe` and `snakemake largest_batch` on this machine: real processes, each cell once, failures tried again."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, STUDY
from workflow import TWO_SCENES, copy_project, snakemake

from ablation.hardware import load_card
from ablation.probe.cell import Cell
from ablation.study import load_study
from ablation.sweep import expand
from ablation.vram.budget import CONTEXT_GIB
from ablation.yamlfile import parse_yaml

SMALL = [TWO_SCENES, "sweep={strategy: [A, C], rank: 4, seed: [0, 1]}", "baseline={rank: 4}"]
WIDER = [TWO_SCENES, "sweep={strategy: [A, C], rank: [4, 8], seed: [0, 1]}", "baseline={rank: 4}"]
# A cell that tests of the plan predict as well: its step is traced once.
FULL = ["scale=full", "sweep={strategy: A, rank: 16, batch: 1, accumulation: 1, precision: bf16}", "keep=batch == 1"]
RESULTS = "results/demo/vggt-eth3d"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clone") / "project")


@pytest.fixture(scope="module")
def first(project):
    """What the first probe of the project's small study said."""
    done = snakemake(project, "probe", config=SMALL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def records(results: Path) -> dict[str, int]:
    """The records there are, with the time of their writing."""
    return {path.stem: path.stat().st_mtime_ns for path in (results / "probe").glob("*-*.json")}


def test_every_cell_is_measured_without_data_or_weights(project, first):
    results = project / RESULTS
    table = pd.read_csv(results / "probe.csv")
    assert list(table["strategy"]) == ["A", "C"] and list(table["outcome"]) == ["completed"] * 2 and "seed" not in table
    assert (table["peak_allocated_gib"] > 0.01).all() and (table["step_s"] > 0).all() and set(table["device"]) == {"CPU"}
    assert (table["samples_per_s"] * table["step_s"]).round(3).tolist() == [2, 2]
    assert not (project / "results/demo/data").exists() and not (results / "runs").exists()
    assert "vggt-eth3d: 2 cells (2 completed) on CPU" in first and first.isascii()


def test_a_second_probe_does_nothing(project, first):
    again = snakemake(project, "probe", config=SMALL)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr


def test_a_new_rank_probes_its_cells_only_and_a_failed_one_is_tried_again(project, first):
    """One of the new cells cannot write its record: a row that says why, and the others stand."""
    results = project / RESULTS
    before = records(results)
    data = parse_yaml(TWO_SCENES.removeprefix("data="))
    study = load_study(STUDY, {"data": data, "sweep": {"strategy": "C", "rank": 8, "seed": 0}})
    unlucky = Cell(expand(study, "x")[0], load_card("rtx4090", ROOT / "config/hardware"), "cpu").name
    (results / f"probe/{unlucky}.json").mkdir()
    done = snakemake(project, "probe", config=WIDER)
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(results / "probe.csv").set_index(["strategy", "rank"])
    assert table["outcome"].to_dict() == {
        ("A", 4): "completed",
        ("A", 8): "completed",
        ("C", 4): "completed",
        ("C", 8): "failed",
    }
    assert "directory" in table.loc["C", 8]["reason"] and "1 failed" in done.stdout
    assert json.loads((results / "probe/failures.json").read_text()) == {unlucky: 1}
    between = records(results)
    assert {name: between[name] for name in before} == before and len(between) == 4

    (results / f"probe/{unlucky}.json").rmdir()
    assert snakemake(project, "probe", config=WIDER).returncode == 0
    after = records(results)
    assert set(pd.read_csv(results / "probe.csv")["outcome"]) == {"completed"}
    assert {name: after[name] for name in after if name != unlucky} == {n: between[n] for n in between if n != unlucky}
    again = snakemake(project, "probe", config=WIDER)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_where_nothing_can_be_measured_the_target_fails_and_says_why(project):
    config = [*SMALL, "sweep={strategy: A, gpus: 2}"]
    done = snakemake(project, "probe", config=config)
    text = done.stdout + done.stderr
    assert (
        done.returncode != 0
        and "no cell could be measured" in text
        and "a probe is one process" in text
        and "Traceback" not in text
    )
    assert not (project / RESULTS / "probe.csv").exists()


def test_full_scale_is_not_probed_on_a_cpu(project):
    done = snakemake(project, "probe", config=FULL)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "no CUDA device is visible" in text and "Traceback" not in text


def test_the_largest_batch_fits_and_the_next_does_not(project):
    """On a card that is made to fit two samples of the demo, as a probe of them measures."""
    card = (project / "config/hardware/rtx4090.yaml").read_text()
    config = [TWO_SCENES, "sweep={strategy: A, rank: 4, batch: 2, accumulation: 2, seed: 0}"]
    assert snakemake(project, "probe", config=config).returncode == 0
    of_two = pd.read_csv(project / RESULTS / "probe.csv")["peak_allocated_gib"].max()
    usable = 1.02 * of_two + CONTEXT_GIB
    (project / "config/hardware/small.yaml").write_text(card.replace("usable_gib: ", f"usable_gib: {usable:.4f} # "))
    done = snakemake(project, "largest_batch", config=[*config, "hardware=small"])
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = pd.read_csv(project / RESULTS / "largest_batch.csv").to_dict("records")
    assert row["outcome"] == "found" and row["largest_batch"] == 2 and row["trials"] == 4
    assert row["peak_allocated_gib"] == pytest.approx(of_two, rel=0.01)
    again = snakemake(project, "largest_batch", config=[*config, "hardware=small"])
    assert "Nothing to be done" in again.stdout + again.stderr
