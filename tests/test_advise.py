"""The advisor: which batches it considers, where it stops, how it sorts, and what it says."""

import csv
import sys

import advise as program
import pytest
from conftest import ROOT, STUDY

from ablation import advice
from ablation.advise import Miss, Option, candidates, closest, fitting
from ablation.errors import UserError
from ablation.hardware import load_card
from ablation.speeds import Measured, speeds
from ablation.study import load_study, study_file
from ablation.sweep import expand
from ablation.vram.flops import Flops, flops_per_sample
from ablation.vram.predict import Prediction
from ablation.yamlfile import dump_yaml, load_yaml

CARD = load_card("rtx4090", ROOT / "config/hardware")


def runs_of(**sweep):
    return expand(load_study(STUDY, {"sweep": {"strategy": ["A", "C"], "rank": [4, 16], "seed": 0, **sweep}}), "s")


def sized(gib, verdict, gradients=0.0):
    return Prediction(gib, gib, "backward", {"gradients": gradients}, verdict)


def test_batches_are_those_that_make_the_effective_batch():
    groups = candidates(runs_of(), CARD, effective_batch=24, gpus=2)
    assert [run.axes["strategy"] for (run, *_) in groups] == ["A", "A", "C", "C"]
    assert [run.axes["batch"] for run in groups[0]] == [1, 2, 3, 4, 6, 12]
    assert {run.effective_batch for group in groups for run in group} == {24}


def test_an_effective_batch_must_be_shared_evenly():
    with pytest.raises(UserError, match="250 cannot be shared evenly by 8 GPUs; nearest: 248 or 256"):
        candidates(runs_of(), CARD, effective_batch=250, gpus=8)


def test_only_precisions_of_the_card():
    old = CARD.model_copy(update={"precisions": ("fp32",)})
    assert {run.axes["precision"] for (run, *_) in candidates(runs_of(precision=["bf16", "fp32"]), old, 4, 1)} == {"fp32"}
    with pytest.raises(UserError, match=r"trains in fp32; the study sweeps bf16 only"):
        candidates(runs_of(precision="bf16"), old, 4, 1)


def test_larger_batches_than_one_that_does_not_fit_are_not_predicted():
    group, asked = candidates(runs_of(), CARD, 16, 1)[0], []

    def predict(run):
        asked.append(run.axes["batch"])
        return sized(10 * run.axes["batch"], "oom" if run.axes["batch"] > 2 else "fits")

    found, miss = fitting(group, predict, budget=23)
    assert asked == [1, 2, 4] and [option.run.axes["batch"] for option in found] == [1, 2]
    assert miss == Miss(miss.smallest, 16, open_end=True) and miss.smallest.run.axes["batch"] == 4
    assert advice._where(miss) == "batch 4 and above: OOM, 40.50 GiB"


def test_a_step_of_one_pass_may_fit_where_smaller_batches_do_not():
    """Its gradients wait for no further pass."""
    group = candidates(runs_of(), CARD, 2, 1)[0]
    sizes = {1: sized(25, "oom", gradients=10), 2: sized(20, "fits")}
    found, miss = fitting(group, lambda run: sizes[run.axes["batch"]], budget=23)
    assert [option.run.axes["batch"] for option in found] == [2] and not miss.open_end
    assert advice._where(miss) == "batch 1: OOM, 25.50 GiB"


def test_measured_speeds_are_those_of_the_card(tmp_path):
    fast, slow = runs_of(strategy="A", rank=[4, 16])
    rows = [
        {**fast.cell, "outcome": "completed", "step_s": 1.0, "device": CARD.name},
        {**slow.cell, "outcome": "completed", "step_s": 4.0, "device": CARD.name},
    ]
    path = tmp_path / "probe.csv"
    write(path, rows)
    measured = Measured(path, CARD, [fast, slow])
    assert measured.note == "" and [measured(run) for run in (fast, slow)] == [2, 0.5]
    assert [(s.relative, s.measured, s.group) for s in speeds([fast, slow], measured, None)] == [
        (1, True, ""),
        (0.25, True, ""),
    ]
    write(path, [{**rows[0], "device": "CPU", "time.step_median_s": 1}])
    elsewhere = Measured(path, CARD, [fast, slow])
    assert elsewhere(fast) is None and "was measured on CPU" in elsewhere.note
    write(path, [{**rows[0], "outcome": "oom"}])
    assert Measured(path, CARD, [fast])(fast) is None
    assert Measured(tmp_path / "none.csv", CARD, [fast])(fast) is None


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_estimates_take_the_rate_of_what_was_measured():
    first, second = runs_of(strategy="A", precision="fp32", rank=[4, 16])
    found = speeds([first, second], lambda run: {4: 10.0}.get(run.rank), lambda run: run.rank)
    assert [speed.relative for speed in found] == [1, 0.25] and [speed.measured for speed in found] == [True, False]
    assert {speed.group for speed in found} == {""}


def test_unmeasured_precisions_are_not_compared():
    runs = runs_of(strategy="A", rank=4, precision=["bf16", "fp32"])
    assert [(s.relative, s.group) for s in speeds(runs, lambda run: None, lambda run: 7)] == [(1, "bf16"), (1, "fp32")]


def test_operations_are_affine_in_the_rank():
    runs = runs_of(strategy="C", rank=[4, 8, 16])
    flops = Flops(runs)
    assert flops(runs[1]) == flops_per_sample(runs[1]) and flops(runs[0]) < flops(runs[1]) < flops(runs[2])


def test_recomputation_and_attention_count():
    run = runs_of(strategy="C", rank=4)[0]
    study = {"sweep": {"strategy": "C", "rank": 4}, "strategies": {"C": {"gradient_checkpointing": False}}}
    (plain,) = {r.rank: r for r in expand(load_study(STUDY, study), "s")}.values()
    assert 1.1 < flops_per_sample(run) / flops_per_sample(plain) < 1.5


@pytest.fixture
def advised(tmp_path, monkeypatch, capsys):
    """Runs the program on a small study and a card of ``gib``; returns its exit status and what it says."""
    (tmp_path / "config/hardware").mkdir(parents=True)
    content = load_yaml(STUDY)
    content["scales"]["demo"]["sweep"] = {"strategy": "A", "rank": 4, "precision": "fp32", "seed": 0}
    (tmp_path / "small.yaml").write_text(dump_yaml(content))
    monkeypatch.setattr(program, "ROOT", tmp_path)

    def advise(gib, *arguments):
        card = {**load_yaml(ROOT / "config/hardware/rtx4090.yaml"), "usable_gib": gib, "memory_gib": gib}
        (tmp_path / f"config/hardware/card{gib}.yaml").write_text(dump_yaml(card))
        line = [str(tmp_path / "small.yaml"), "--gpu", f"card{gib}", "--scale", "demo", *arguments]
        monkeypatch.setattr(sys, "argv", ["advise.py", *line])
        status = 0
        try:
            program.main()
        except SystemExit as ended:
            status = ended.code
        return status, capsys.readouterr().out

    return advise


def test_the_program_advises(advised):
    status, text = advised(0.65, "--effective-batch", "8")
    lines = text.splitlines()
    assert status == 0 and "effective batch 8 = batch x accum" in lines[0]
    rows = [line.split() for line in lines if line.startswith("  A")]
    assert [row[3:5] for row in rows if len(row) == 8] == [["2", "4"], ["1", "8"]]  # as fast: fewer passes first
    assert "batch 4 and above: OOM" in text and "~ estimated from FLOPs" in text and text.isascii()


def test_the_program_says_what_comes_closest(advised):
    status, text = advised(0.52, "--effective-batch", "2")
    assert status == program.NOTHING_FITS
    assert "nothing fits. Closest: strategy A, rank 4, fp32, batch 1 x 2:" in text and "GiB too much" in text


def test_unknown_names_are_explained():
    with pytest.raises(UserError, match="there is no study 'vgt-eth3d'"):
        study_file("vgt-eth3d", ROOT / "config/studies")
    with pytest.raises(UserError, match="no such study file"):
        study_file("elsewhere.yaml", ROOT / "config/studies")


def test_an_option_has_head_room():
    option = Option(runs_of()[0], sized(20, "tight"))
    assert closest([Miss(option, 1, True)]) is option
