"""A swept value that changes nothing within a run's steps is found, and said in plan and report."""

import csv
import subprocess
import sys

import pytest
from conftest import ROOT, STUDY
from hypothesis import given
from hypothesis import strategies as st
from report_study import write_study

from ablation.alike import alike, in_force, one_training
from ablation.report.study_report import report_of
from ablation.resolved import save_study
from ablation.settings import Training
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.training.schedules import average_decay, learning_rate

DIGITS = ROOT / "config/studies/dit-images.yaml"


def study_of(sweep, training=None, path=STUDY, **changes):
    """A shipped demo with other axes, and no baseline to lack among them."""
    given = {"keep": [], "include": [], "baseline": None, "training": training or {}, **changes}
    axes = {"strategy": ["A"], "rank": [4], "batch": [1], "accumulation": [1], "precision": ["fp32"], "seed": [0]}
    return load_study(path, {**given, "sweep": {**axes, **sweep}})


def told(study, steps=500):
    """What is said of a study whose runs take ``steps`` steps."""
    runs = expand(study, "s")
    return [str(one) for one in one_training(alike(study, runs, dict.fromkeys((run.id for run in runs), steps)))]


def test_decays_that_are_not_reached_are_one():
    """0.99, 0.999 and 0.9999 were three rows of a table, and bitwise one average."""
    study = study_of({"training.ema": [0.9, 0.99, 0.999, 0.9999], "seed": [0, 1]}, {"steps": 500})
    why = "no difference within 500 steps (the average's decay in force ends at 0.9824), in 6 runs"
    assert told(study) == [f"training.ema 0.99, 0.999, 0.9999: {why}"]
    assert told(study, 8000)[0].startswith("training.ema 0.999, 0.9999: no difference within 8,000 steps")
    assert told(study, 14_100) == []  # 0.999 is reached after 8,991 updates
    assert told(study_of({"training.ema": [0.9, 0.99]}, {"steps": 500, "ema_warmup": False})) == []


@pytest.mark.parametrize(
    ("axis", "values", "training"),
    [
        ("training.ema_warmup", [True, False], {"ema": 0.0}),
        ("training.min_lr", [1e-6, 1e-7], {"schedule": "constant"}),
        ("training.warmup", [0.1, 0.1001], {}),
        ("training.checkpoint_every", [500, 1000], {}),
        ("training.preview_every", [500, 1000], {}),
    ],
)
def test_other_settings_without_effect(axis, values, training):
    assert told(study_of({axis: values}, training)) == [
        f"{axis} {values[0]}, {values[1]}: no difference within 500 steps, in 2 runs"
    ]


def test_adapters_settings_change_nothing_where_there_are_none():
    full = {"full": {"train": {"full": ["camera_head"]}, "lr": 1e-4}}
    study = study_of({"strategy": ["A", "full"], "lora.dropout": [0.0, 0.1]}, strategies=full)
    (one,) = alike(study, expand(study, "s"), {run.id: 500 for run in expand(study, "s")})
    assert {run.axes["strategy"] for run in one.runs} == {"full"} and one.differs == {"lora.dropout": [0.0, 0.1]}


@pytest.mark.parametrize("axis", ["training.weight_decay", "training.eps", "training.clip"])
def test_what_may_have_an_effect_is_never_called_without(axis):
    assert told(study_of({axis: [0.01, 0.02]})) == []


TRAININGS = st.builds(
    Training,
    steps=st.integers(1, 40),
    schedule=st.sampled_from(["cosine", "constant"]),
    warmup=st.sampled_from([0.0, 0.02, 0.03, 0.5, 1.0]),
    min_lr=st.sampled_from([0.0, 1e-6, 1e-3]),
    ema=st.sampled_from([0.0, 0.1, 0.18, 0.5, 0.9, 0.99]),
    ema_warmup=st.sampled_from([None, True, False, "power"]),
)


@given(TRAININGS, TRAININGS)
def test_what_trains_alike_has_every_rate_and_every_decay_the_same(one, other):
    """By the functions that the trainer calls; in the other direction, what has not is never called alike."""
    run = expand(study_of({}), "s")[0]
    steps = one.steps
    views = [
        in_force(Run(run.id, run.study, run.axes, run.strategy, run.settings.model_copy(update={"training": training})), steps)
        for training in (one, other)
    ]
    rates, decays = (
        [[how(n, training) for n in range(steps)] for training in (one, other)]
        for how in (
            lambda n, training: learning_rate(n, steps, run.strategy.lr, training),
            lambda n, training: average_decay(n + 1, training) if training.ema else None,
        )
    )
    same = rates[0] == rates[1] and decays[0] == decays[1]
    if views[0] == views[1]:
        assert same
    elif same:  # a cosine of one or two steps is not taken for the constant that it is
        assert decays[0] == decays[1]


def test_the_release_s_own_average_is_the_default():
    """facebookresearch/DiT's is constant, RDT's a power; the others' is latent diffusion's, or they have none."""
    found = {}
    for path in sorted((ROOT / "config/studies").glob("*.yaml")):
        study = load_study(path, {"training": {"ema": 0.99, "ema_warmup": None}})
        found[study.system] = study.training.ema_warmup
        assert load_study(path, {"training": {"ema": 0.0, "ema_warmup": None}}).training.ema_warmup is None
        (run, *_) = expand(study, "s")
        assert Run.from_view(run.training_view).training_view == run.training_view
    assert found == {"dit": False, "rdt": "power", "hunyuan3d": None, "kolors": None, "vggt": None}


def test_a_run_from_before_defaults_followed_the_releases_keeps_its_average():
    (run, *_) = expand(load_study(DIGITS, {"training": {"ema": 0.99, "ema_warmup": True}}), "s")
    view = run.training_view
    old = {**view, "settings": {**view["settings"], "training": dict(view["settings"]["training"])}}
    del old["settings"]["training"]["ema_warmup"]  # it was left out where it was true
    assert Run.from_view(old).settings.training.ema_warmup is True


def test_a_report_says_which_values_make_no_difference(tmp_path):
    study = study_of({"training.ema": [0.9, 0.99, 0.999], "seed": [0, 1]}, {"steps": 5})
    _, results = write_study(tmp_path, study)
    report = report_of(results, "s", tmp_path)
    axes = next(section for section in report.sections if section.name == "axes")
    assert axes.text == [
        "training.ema 0.9, 0.99, 0.999: no difference within 5 steps (the average's decay in force ends at 0.4), in 6 runs.",
        "The average's decay rises with its updates: for ema 0.9, 0.99, 0.999 it is 0.4 after 5 steps.",
    ]
    assert axes.text[0] in report.summary
    verdicts = {row.cells[1].text: row.cells[6].text for row in axes.blocks[0].rows}
    assert verdicts == {"0.9 → 0.99": "one training", "0.9 → 0.999": "one training"}


def test_a_report_names_the_decay_that_is_in_force(tmp_path):
    study = study_of({"training.ema": [0.0, 0.99]}, {"steps": 5})
    _, results = write_study(tmp_path, study)
    report = report_of(results, "s", tmp_path)
    axes = next(section for section in report.sections if section.name == "axes")
    assert axes.text == ["The average's decay rises with its updates: for ema 0.99 it is 0.4 after 5 steps."]
    assert [run.numbers.get("decay of the average, last") for run in report.runs] == [None, "0.4"]


def test_the_plan_warns_before_anything_is_trained(tmp_path):
    study = study_of({"strategy": ["full"], "rank": [16], "training.ema": [0.9, 0.99, 0.999]}, {"ema_warmup": True}, DIGITS)
    save_study(tmp_path / "study.json", "digits", study)
    files = {"study": "study.json", "output": "plan.csv", "on-cards": "cards.csv"}
    command = [word for name, file in files.items() for word in (f"--{name}", str(tmp_path / file))]
    program = [sys.executable, str(ROOT / "scripts/plan_study.py"), "--cards", str(ROOT / "config/hardware"), *command]
    said = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "warning: training.ema 0.99, 0.999: no difference within 500 steps" in said
    rows = {float(row["training.ema"]): row for row in csv.DictReader((tmp_path / "plan.csv").read_text().splitlines())}
    assert [rows[ema]["same_as"] for ema in (0.9, 0.99, 0.999)] == ["", "", rows[0.99]["run"]]
