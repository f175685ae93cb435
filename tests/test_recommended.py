"""A study against a recommended configuration: every parameter is told as it is, and what is advised makes it so."""

import csv
import sys
from functools import reduce

import compare_config
import jsonschema
import pytest
from conftest import ROOT, STUDY
from report_study import page_of, write_study

from ablation import schema
from ablation.comparison import as_text, compare
from ablation.errors import UserError
from ablation.hardware import load_card
from ablation.recommended import Recommended, load_recommended, recommended_for
from ablation.resolved import save_study
from ablation.study import find_studies, load_study
from ablation.sweep import expand
from ablation.vram.predict import Predictor
from ablation.ways import Advisor
from ablation.yamlfile import dump_yaml, load_yaml, merge, parse_yaml

CARD = load_card("rtx4090", ROOT / "config/hardware")
FILES = sorted((ROOT / "config/recommended").glob("*.yaml"))


def recommendation(parameters):
    """A recommended configuration of these parameters, as YAML or plain data."""
    parameters = parse_yaml(parameters) if isinstance(parameters, str) else parameters
    return Recommended.model_validate({"system": "vggt", "source": "a paper", "parameters": parameters})


def rows_of(parameters, overrides=None, card=CARD):
    """Parameter -> row, for the demo study with ``overrides``."""
    study = load_study(STUDY, overrides)
    rows = compare(study, expand(study, "s"), recommendation(parameters), card, lambda _: ("", {}))
    return {row.parameter: row for row in rows}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_files_name_what_there_is_and_fit_the_schema(path):
    assert load_recommended(path.stem, path.parent).system == path.stem
    jsonschema.validate(load_yaml(path), schema.recommended_schema())


@pytest.mark.parametrize(
    "path", find_studies([p.stem for p in (ROOT / "config/studies").glob("*.yaml")], STUDY.parent).values()
)
def test_committed_studies_are_compared_with_their_system(path):
    for scale in ("demo", "full"):
        study = load_study(path, {"scale": scale})
        found = recommended_for(study, ROOT / "config/recommended")
        assert found is None or compare(study, expand(study, path.stem), found, CARD, lambda _: ("", {}))


BAD = {
    "unknown setting": ("training.warmpu: 0.1", ["training.warmpu", "did you mean warmup"]),
    "unknown name": ("efective_batch: 8", ["efective_batch", "did you mean effective_batch"]),
    "a section": ("training.guards: 1", ["training.guards", "stuck_after"]),
    "of no run": ("sweep.rank: 16", ["sweep.rank", "no such setting"]),
    "not dotted": ("hardware: rtx4090", ["hardware", "dotted name"]),
    "no such value": ("precision: bf61", ["precision", "'bf61'", "bf16"]),
    "no number": ("lr: fast", ["lr", "'fast'", "number"]),
    "out of range": ("training.warmup: {at_most: 2}", ["training.warmup", "2"]),
    "two kinds": ("lr: {value: 1e-4, at_least: 1e-5}", ["parameters.lr", "exactly one"]),
    "no kind": ("lr: {why: because}", ["parameters.lr", "exactly one"]),
    "limits the wrong way": ("lr: {at_least: 2, at_most: 1}", ["parameters.lr", "below"]),
    "unknown key": ("lr: {valeu: 1e-4}", ["valeu", "did you mean value"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_parameter_is_one_readable_error(tmp_path, case):
    text, expected = BAD[case]
    path = tmp_path / "mine.yaml"
    path.write_text(f"system: vggt\nsource: me\nparameters:\n  rank: 16\n  {text}\n")
    with pytest.raises(UserError) as caught:
        load_recommended("mine", tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}:5: ") and all(word in message for word in expected), message


def test_files_and_systems_that_do_not_match_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"no file .*; did you mean vggt"):
        load_recommended("vgt", ROOT / "config/recommended")
    (tmp_path / "other.yaml").write_text("system: vgtt\nsource: me\nparameters: {rank: 16}\n")
    with pytest.raises(UserError, match=r"other.yaml:1: system = 'vgtt': no such system"):
        load_recommended("other", tmp_path)
    study = load_study(STUDY)
    assert recommended_for(study.model_copy(update={"recommended": None}), tmp_path) is None


KINDS = {
    "a setting": ("training.clip: 0.5", {}, "differs", "1", {"training": {"clip": 0.5}}),
    "the same": ("training.clip: 1.0", {}, "same", "1", {}),
    "null": ("training.clip: null", {}, "differs", "1", {"training": {"clip": None}}),
    "a list": ("training.betas: [0.9, 0.999]", {}, "same", "[0.9, 0.999]", {}),
    "one of several": ("training.schedule: {one_of: [constant, cosine]}", {}, "same", "cosine", {}),
    "the nearest limit": (
        "training.weight_decay: {at_least: 0.02, at_most: 0.1}", {}, "differs", "0.01", {"training": {"weight_decay": 0.02}},
    ),
    "above a limit": ("lora.dropout: {at_most: 0.05}", {}, "differs", "0.1", {"lora": {"dropout": 0.05}}),
    "within limits": ("data.frames: {at_least: 2, at_most: 24}", {}, "same", "4", {}),
    "an axis": ("precision: bf16", {}, "differs", "fp32", {"sweep": {"precision": "bf16"}}),
    "swept": ("rank: 16", {}, "swept", "4, 16", {}),
    "swept, without it": ("rank: 8", {}, "differs", "4, 16", {"sweep": {"rank": 8}}),
    "of all strategies": (
        "lr: 1e-4", {"strategies": {"B": {"lr": 1e-4}, "A": {"lr": 3e-4}, "C": {"lr": 3e-4}}}, "differs",
        "0.0003 (A, C), 0.0001 (B)", {"strategies": {"A": {"lr": 1e-4}, "C": {"lr": 1e-4}}},
    ),
    "of one strategy": ("strategies.B.lr: 1e-4", {}, "differs", "0.002", {"strategies": {"B": {"lr": 1e-4}}}),
    "of a strategy that is not there": ("strategies.Z.lr: 1e-4", {}, "absent", "-", {}),
    "a dotted axis": (
        "training.clip: 0.5", {"sweep": {"training.clip": [1, 2]}}, "differs", "1, 2", {"sweep": {"training.clip": 0.5}},
    ),
    "a dotted axis that has it": ("training.clip: 1", {"sweep": {"training.clip": [1, 2]}}, "swept", "1, 2", {}),
    "adapters where none are trained": (
        "lora.dropout: 0", {"strategies": {"A": {"train": {"lora": None, "full": ["depth_head"]}}}, "sweep": {"strategy": "A"}},
        "absent", "-", {},
    ),
    "steps": ("steps: 100", {}, "differs", "60", {"training": {"steps": 100}}),
    "epochs in place of steps": ("epochs: 20", {}, "open", "60 steps", {"training": {"epochs": 20, "steps": None}}),
    "steps in place of epochs": (
        "steps: {at_most: 900}", {"training": {"steps": None, "epochs": 3}}, "open", "3 epochs",
        {"training": {"steps": 900, "epochs": None}},
    ),
    "steps of warm-up": ("warmup_steps: {at_least: 3, at_most: 5}", {}, "differs", "6", {"training": {"warmup": 0.0833333}}),
    "steps of warm-up that are many enough": ("warmup_steps: {at_least: 5}", {}, "same", "6", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_each_kind_of_row(case):
    text, overrides, verdict, yours, change = KINDS[case]
    (row,) = rows_of(text, overrides).values()
    assert (row.verdict, row.yours, row.change) == (verdict, yours, change)


def test_what_is_advised_makes_the_study_as_recommended():
    """All changes together, the steps of warm-up being those of the recommended length."""
    wanted = {
        "lr": 1e-4, "steps": 9000, "warmup_steps": {"at_least": 500, "at_most": 1000}, "rank": 8, "seed": 7,
        "precision": {"one_of": ["bf16", "fp16"]}, "training.schedule": "constant", "training.betas": [0.9, 0.95],
        "training.clip": None, "data.augment.jitter": {"at_least": 0.5}, "strategies.C.gradient_checkpointing": False,
        "lora.dropout": 0, "training.guards.stuck_after": 100,
    }  # fmt: skip
    before = rows_of(wanted)
    assert {row.verdict for row in before.values()} == {"differs"}
    assert before["warmup_steps"].to_do.startswith("900 of 9000 steps; training: {warmup: 0.1}")
    after = rows_of(wanted, reduce(merge, (row.change for row in before.values())))
    assert {row.verdict for row in after.values()} == {"same"}


def test_a_warm_up_that_cannot_be_is_said_so():
    assert rows_of("warmup_steps: 500")["warmup_steps"].to_do == "a run of 60 steps is shorter than the warm-up should be"
    by_epochs = rows_of("warmup_steps: 500", {"training": {"steps": None, "epochs": 3}})["warmup_steps"]
    assert (by_epochs.verdict, by_epochs.yours) == ("open", "0.1 of 3 epochs") and "training.steps" in by_epochs.to_do


def test_a_precision_that_the_card_lacks_is_not_advised():
    old = CARD.model_copy(update={"precisions": ("fp32", "tf32")})
    row = rows_of("precision: {one_of: [bf16, fp16]}", card=old)["precision"]
    assert row.to_do == f"{CARD.name} does not train in bf16 or fp16; it does in fp32 or tf32" and not row.change


def test_a_strategy_that_is_not_there_cannot_be_chosen():
    assert rows_of("strategy: B")["strategy"].verdict == "swept"
    assert rows_of("strategy: Z")["strategy"].to_do == "the study has no strategy Z"


def test_the_console_shows_what_differs_and_counts_the_rest():
    parameters = "{training.clip: 1, training.eps: 1e-8, training.min_lr: 0, rank: 4, strategies.Z.lr: 1}"
    text = as_text(list(rows_of(parameters).values()), "mine", recommendation(parameters), "full")
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "against the recommended configuration mine (a paper)",
        "parameter yours recommended what to write",
        "training.min_lr 1e-06 0 training: {min_lr: 0}",
        "2 others agree",
        "one of the values swept: rank",
        "without meaning in this study: strategies.Z.lr",
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The demo's network as a study of full scale, whose batches a card must hold; beside it, what a project has."""
    folder = tmp_path_factory.mktemp("small")
    content = load_yaml(STUDY)
    demo = content["scales"].pop("demo")
    content["scales"]["full"] = merge(demo, {"keep": "batch * accumulation * gpus == 4"})
    (folder / "config").symlink_to(ROOT / "config")
    path = folder / "small.yaml"
    path.write_text(dump_yaml(content))
    return path


def advice(small, sweep, wanted="effective_batch: 4", gib=0.64):
    """Advice for a card of ``gib``: the row, the study's runs, and the predictor that stands behind it."""
    sweep = {"strategy": "A", "rank": 4, "precision": "fp32", "seed": 0, **sweep}
    study = load_study(small, {"scale": "full", "sweep": sweep})
    card = CARD.model_copy(update={"usable_gib": gib, "memory_gib": gib})
    runs, traces = expand(study, "s"), small.parent / "results/traces"
    recommended = recommendation(wanted)
    advisor = Advisor(study, runs, recommended, card, traces, small.parent / "none.csv")
    (row,) = compare(study, runs, recommended, card, advisor)
    return row, runs, Predictor(runs, card, traces)


def test_a_batch_that_does_not_fit_is_replaced_by_one_that_is_predicted_to(small):
    row, (run,), predictor = advice(small, {"batch": 4, "accumulation": 1})
    assert row.verdict == "same" and predictor(run).verdict == "oom"
    smaller = predictor(run.with_axes(batch=2, accumulation=2))
    assert row.advice == f"on {CARD.name}, 4 x 1 does not fit, 2 x 2 does ({smaller.total:.2f} of 0.64 GiB)"
    assert row.change == {"sweep": {"batch": 2, "accumulation": 2}}
    after, *_ = advice(small, row.change["sweep"])
    assert (after.verdict, after.to_do) == ("same", "")


def test_another_effective_batch_changes_the_constraint_too(small):
    row, *_ = advice(small, {"batch": 2, "accumulation": 2}, "effective_batch: {at_least: 8, at_most: 64}")
    assert row.verdict == "differs" and row.yours == "4" and ", 2 x 4 fits (" in row.advice
    assert row.change == {"sweep": {"batch": 2, "accumulation": 4}, "keep": ["batch * accumulation * gpus == 8"]}


def test_a_batch_that_fits_all_strategies_is_advised(small):
    row, *_ = advice(small, {"strategy": ["A", "C"], "batch": [2, 4], "accumulation": [2, 1]}, gib=0.625)
    assert "A: 4 x 1 does not fit, 2 x 2 does (" in row.advice and "C: 2 x 2, 4 x 1 do not fit, 1 x 4 does (" in row.advice
    assert row.change == {"sweep": {"batch": 1, "accumulation": 4}}


def test_what_comes_closest_where_nothing_fits(small):
    row, (run,), predictor = advice(small, {"batch": 4, "accumulation": 1}, gib=0.52)
    needed = predictor(run.with_axes(batch=1, accumulation=4)).total
    assert row.advice == f"on {CARD.name}, nothing fits, 1 x 4 needs {needed:.2f} of 0.52 GiB" and not row.change


def test_gpus_that_cannot_share_the_batch_are_told(small):
    row, *_ = advice(small, {"batch": 2, "accumulation": 1, "gpus": 2}, "effective_batch: 9")
    assert row.advice == "effective-batch 9 cannot be shared evenly by 2 GPUs; nearest: 8 or 10"


def run_program(monkeypatch, capsys, program, *arguments):
    monkeypatch.setattr(sys, "argv", [program.__name__, *map(str, arguments)])
    program.main()
    return capsys.readouterr().out


def test_the_comparison_of_a_workflow_is_a_file_and_the_report_shows_it(tmp_path, monkeypatch, capsys):
    study = load_study(STUDY, {"sweep": {"strategy": "A", "rank": 4, "seed": 0}, "training": {"weight_decay": 0.02}})
    save_study(tmp_path / "study.json", "s", study)
    table = tmp_path / "recommended.csv"
    text = run_program(monkeypatch, capsys, compare_config, "--study", tmp_path / "study.json", "--output", table)
    assert "against the recommended configuration vggt" in text and "training: {weight_decay: 0.01}" in text
    with table.open(newline="") as file:
        rows = {row["parameter"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(load_recommended("vggt", ROOT / "config/recommended").parameters)
    assert rows["training.weight_decay"]["yours"] == "0.02" and rows["training.clip"]["verdict"] == "same"

    _, results = write_study(tmp_path, study)
    page = page_of(results, tmp_path)
    assert "Against the recommended configuration" in page and "training: {weight_decay: 0.01}" in page
    results.study = study.model_copy(update={"recommended": None})
    assert "recommended configuration" not in page_of(results, tmp_path)


def test_by_hand_with_values_laid_over_the_study(monkeypatch, capsys):
    line = ["--study", STUDY, "--card", "l40s", "--config", "scale=demo", "training={warmup: 0.5}", "lora={dropout: 0.1}"]
    text = run_program(monkeypatch, capsys, compare_config, *line)
    assert "training: {warmup: 0.1}" in text and "lora.dropout" not in text and text.isascii()
    with pytest.raises(UserError, match="names no recommended configuration; add --config recommended=NAME"):
        run_program(monkeypatch, capsys, compare_config, "--study", "vggt-eth3d", "--config", "recommended=null")


def test_at_full_scale_the_comparison_has_the_advice_for_the_card(small, monkeypatch, capsys):
    monkeypatch.setattr(compare_config, "ROOT", small.parent)  # it keeps traces there
    line = ["--study", small, "--config", "sweep={strategy: A, rank: 4, seed: 0, batch: 2, accumulation: 2}"]
    text = run_program(monkeypatch, capsys, compare_config, *line)
    assert f"on {CARD.name}, 8 x 1 fits (" in text and f" of {CARD.usable_gib:g} GiB)" in text
    assert list((small.parent / "results/traces").iterdir())
