"""A study file becomes runs, or one readable error that names file, line, key and value."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from conftest import ROOT, STUDY
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation import schema
from ablation.canonical import canonical
from ablation.errors import UserError
from ablation.hardware import load_card
from ablation.resolved import fingerprint_of, load_run, save_study
from ablation.study import find_studies, load_study
from ablation.sweep import Run, all_axes, expand
from ablation.systems import load_system
from ablation.yamlfile import dump_yaml, load_yaml, merge, parse_yaml, resolve_strings

STUDIES = sorted((ROOT / "config/studies").glob("*.yaml"))


def runs(**overrides) -> list[Run]:
    return expand(load_study(STUDY, overrides), "vggt-eth3d")


def study_file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


MINIMAL = """\
system: vggt
training: {steps: 10}
strategies:
  A:
    train: {lora: [depth_head]}
    lr: 1e-4
  whole:
    train: {full: [depth_head]}
    lr: 1e-5
sweep:
  rank: [4, 8]
  seed: [0, 1]
"""


def test_demo_is_three_strategies_two_ranks_two_seeds():
    assert len(runs()) == 12
    assert {(run.axes["strategy"], run.rank, run.axes["seed"]) for run in runs()} == {
        (s, r, k) for s in "ABC" for r in (4, 16) for k in (0, 1)
    }


def test_full_scale_is_the_released_architecture():
    study = load_study(STUDY, {"scale": "full"})
    assert study.model.architecture.embed_dim == 1024 and study.data.resolution == (518, 518)
    assert all(run.effective_batch == 8 for run in expand(study, "x"))
    assert len(expand(study, "x")) == 3 * 3 * 2 * 2 * 3


def test_command_line_values_as_snakemake_hands_them_over():
    found = runs(scale="full", sweep={"rank": ["8", "32"]}, keep="batch * accumulation == 16")
    assert {(run.rank, run.effective_batch) for run in found} == {(8, 16), (32, 16)}
    assert type(found[0].rank) is int


def test_full_fine_tuning_has_no_rank(tmp_path):
    found = expand(load_study(study_file(tmp_path, MINIMAL)), "mine")
    assert [(run.axes["strategy"], run.rank, run.axes["seed"]) for run in found] == [
        ("A", 4, 0), ("A", 4, 1), ("A", 8, 0), ("A", 8, 1), ("whole", None, 0), ("whole", None, 1),
    ]  # fmt: skip


def test_adding_a_value_or_an_axis_keeps_the_other_ids():
    before = {run.id: fingerprint_of(run) for run in runs()}
    more = {run.id: fingerprint_of(run) for run in runs(sweep={"rank": [4, 8, 16], "training.clip": [0.5, 1.0]})}
    assert before.items() <= more.items()
    assert len(more) == 36


def test_comments_order_and_notation_change_nothing(tmp_path):
    again = (
        STUDY.read_text()
        .replace("lr: 1e-4", "lr: 0.0001   # a comment")
        .replace("sweep:\n  rank: [4, 16, 64]\n", "sweep:\n  rank: [4,16,64]\n")
    )
    path = study_file(tmp_path, again)
    assert [fingerprint_of(run) for run in expand(load_study(path), "vggt-eth3d")] == [fingerprint_of(run) for run in runs()]


def test_a_change_of_one_value_touches_exactly_its_runs():
    before = {run.id: fingerprint_of(run) for run in runs()}
    after = {run.id: fingerprint_of(run) for run in runs(strategies={"B": {"lr": 3e-4}})}
    assert {run for run in before if before[run] != after[run]} == {run.id for run in runs() if run.axes["strategy"] == "B"}


@pytest.mark.parametrize("change", [{"evaluation": {"alignment": "none"}}, {"compute": {"threads": 3}}, {"title": "x"}])
def test_settings_that_training_does_not_know_retrain_nothing(change):
    assert [run.training_view for run in runs(**change)] == [run.training_view for run in runs()]
    same_jobs = [fingerprint_of(run) for run in runs(**change)] == [fingerprint_of(run) for run in runs()]
    assert same_jobs == ("evaluation" not in change)  # which the same job does, so that it comes again


def test_a_table_of_runs_has_every_value_of_every_axis(tmp_path):
    """Also where a run does not change the study's own; where an axis has no meaning, none."""
    text = MINIMAL.replace("seed: [0, 1]", "seed: 0\n  training.clip: [1.0, 0.5]\n  strategies.A.lr: [1e-4, 1e-3]")
    study = load_study(study_file(tmp_path, text))
    rows = [all_axes(study, run) for run in expand(study, "x")]
    assert {(row["strategy"], row["training.clip"], row["strategies.A.lr"]) for row in rows} == {
        ("A", 1.0, 1e-4), ("A", 1.0, 1e-3), ("A", 0.5, 1e-4), ("A", 0.5, 1e-3), ("whole", 1.0, None), ("whole", 0.5, None)
    }  # fmt: skip


def test_include_exclude_and_keep():
    found = runs(exclude=[{"strategy": "A", "rank": 4}], include=[{"strategy": "A", "rank": 128}], keep="rank < 64")
    ranks = {run.rank for run in found if run.axes["strategy"] == "A"}
    assert ranks == {16, 128} and len(found) == 12


def test_dotted_axis_of_one_strategy_is_meaningless_for_the_others():
    found = runs(sweep={"strategies.A.lr": [1e-3, 2e-3]})
    assert len(found) == 16
    assert {run.strategy.lr for run in found if run.axes["strategy"] == "A"} == {1e-3, 2e-3}


def test_run_survives_its_yaml(tmp_path):
    run = runs()[3]
    path = tmp_path / "run.yaml"
    path.write_text(dump_yaml(run.training_view))
    assert canonical(load_run(None, str(path)).training_view) == canonical(run.training_view)


def test_a_study_changed_while_a_job_waited_is_noticed(tmp_path):
    run = runs()[0]
    save_study(tmp_path / "study.json", "vggt-eth3d", load_study(STUDY, {"training": {"clip": 0.5}}))
    with pytest.raises(UserError, match="changed"):
        load_run(tmp_path / "study.json", run.id, fingerprint_of(run))


BAD = {
    "unknown key": ({"trainng": {}}, ["trainng", "did you mean training"]),
    "unknown nested key": ({"data": {"resolutoin": [84, 112]}}, ["data.resolutoin", "resolution:"]),
    "wrong type": ({"sweep": {"rank": "sixteen"}}, ["sweep.rank", "sixteen", "whole number"]),
    "empty axis": ({"sweep": {"rank": []}}, ["sweep.rank", "at least 1"]),
    "unknown axis": ({"sweep": {"rnk": [8]}}, ["rnk", "did you mean rank"]),
    "value twice": ({"sweep": {"rank": ["8", "8"]}}, ["8", "twice"]),
    "constraint nothing meets": ({"keep": "batch == 77"}, ["leave none", "batch == 77"]),
    "constraint on no axis": ({"keep": "bach == 2"}, ["bach", "no axis"]),
    "duplicate by include": ({"include": [{"strategy": "A", "rank": 4}]}, ["include[0]", "already"]),
    "exclude that matches nothing": ({"exclude": [{"rank": 5}]}, ["exclude[0]", "matches no combination"]),
    "unknown strategy": ({"sweep": {"strategy": ["D"]}}, ["'D'", "A, B, C"]),
    "baseline on no axis": ({"baseline": {"rnk": 3}}, ["rnk", "rank"]),
    "two lengths": ({"training": {"epochs": 3}}, ["epochs", "steps"]),
    "size of no patch": ({"data": {"resolution": [85, 112]}}, ["85", "84"]),
    "no such scale": ({"scale": "dem"}, ["scale", "demo"]),
    "no such system": ({"system": "vgtt"}, ["vgtt", "vggt"]),
    "number out of range": ({"lora": {"dropout": 1.5}}, ["lora.dropout", "less than 1"]),
    "not a number": ({"training": {"clip": ".nan"}}, ["training.clip"]),
    "scene of another source": ({"data": {"scenes": ["facade"]}}, ["facade", "library"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_readable_error(case):
    overrides, expected = BAD[case]
    with pytest.raises(UserError) as caught:
        runs(**overrides)
    message = str(caught.value)
    assert all(word in message for word in expected), message
    assert "Traceback" not in message and len(message) < 1500


def test_error_names_file_and_line(tmp_path):
    path = study_file(tmp_path, MINIMAL.replace("lr: 1e-4", "lr: fast"))
    with pytest.raises(UserError, match=rf"{path}:6: strategies.A.lr = 'fast': must be a number"):
        load_study(path)


def test_error_in_the_part_of_a_scale_names_its_line(tmp_path):
    path = study_file(tmp_path, MINIMAL + "scales:\n  demo:\n    data: {frames: 0}\n")
    with pytest.raises(UserError, match=rf"{path}:15: data.frames = 0"):
        load_study(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("sweep: {rank: [4]}\nsweep: {rank: [8]}\n", "stands twice"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("scales: {huge: {}}\nsystem: vggt\n", "scales"),
    ],
)
def test_broken_files(tmp_path, text, expected):
    with pytest.raises(UserError, match=expected):
        load_study(study_file(tmp_path, text))


def test_missing_study_and_card():
    with pytest.raises(UserError, match="did you mean vggt-eth3d"):
        find_studies("vgt-eth3d", ROOT / "config/studies")
    with pytest.raises(UserError, match="did you mean rtx4090"):
        load_card("rtx4080", ROOT / "config/hardware")


@pytest.mark.parametrize("path", sorted((ROOT / "config/hardware").glob("*.yaml")), ids=lambda path: path.stem)
def test_cards_are_what_cards_are(path):
    """Part of the memory is never usable; bf16 came with Ampere (8.0), FP8 with Ada (8.9)."""
    card = load_card(path.stem, path.parent)
    generation = tuple(map(int, card.compute_capability.split(".")))
    assert 0.96 * card.memory_gib < card.usable_gib < card.memory_gib
    assert ("bf16" in card.precisions) == (generation >= (8, 0)) and card.fp8 == (generation >= (8, 9))


def test_cards_have_the_memory_of_their_names():
    folder = ROOT / "config/hardware"
    usable = {path.stem: load_card(path.stem, folder).usable_gib for path in folder.glob("*.yaml")}
    order = ["rtx4090", "rtx5090", "a100-40", "l40s", "rtx6000-ada", "h100-80", "a100-80", "h200-141"]
    assert [usable[name] for name in order] == sorted(usable[name] for name in order)
    assert usable["a800-80"] == usable["a100-80"]
    named = {name: int(name.rsplit("-", 1)[1]) for name in ("a100-40", "a100-80", "a800-80", "h100-80", "h200-141")}
    for name, size in {"rtx4090": 24, "rtx5090": 32, "l40s": 48, "rtx6000-ada": 48, **named}.items():
        assert 0.92 * size < usable[name] < size


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", ["demo", "full"])
def test_studies_load_at_every_scale_and_fit_the_schema(path, scale):
    assert expand(load_study(path, {"scale": scale}), path.stem)
    jsonschema.validate(load_yaml(path), schema.study_schema())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_report_can_say_what_its_study_measures_and_shows(path):
    study = load_study(path)
    assert study.metrics() and study.settings.pictured().endswith(".")


def test_schema_refuses_what_the_models_refuse():
    content = load_yaml(STUDY)
    content["data"]["resolutoin"] = [84, 112]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema.study_schema())


def test_generated_files_are_up_to_date():
    from write_schemas import FILES

    stale = [name for name, content in FILES.items() if (ROOT / name).read_text() != content()]
    assert stale == [], "run `make schemas`"


def test_numbers_as_people_write_them():
    assert parse_yaml("[1e-4, 1E5, 1.5, .5, 3, -2, yes, true, 1e, e4, 0x1F, 1_000.5]") == [
        1e-4,
        1e5,
        1.5,
        0.5,
        3,
        -2,
        "yes",
        True,
        "1e",
        "e4",
        31,
        "1_000.5",
    ]


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abc xyz", max_size=8)
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcd", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(NESTED)
def test_yaml_round_trip(value):
    assert parse_yaml(dump_yaml(value)) == value


@given(NESTED, NESTED)
def test_merge_takes_the_change(base, change):
    merged = merge({"x": base}, {"x": change})["x"]
    if isinstance(base, dict) and isinstance(change, dict):
        assert set(merged) == set(base) | set(change)
    else:
        assert merged == change


@pytest.mark.parametrize("text", ["*", "model.blocks.*", "&a", "!tag", "<<", "=", "1e-3x", "- 1", "{", ""])
def test_strings_that_are_no_scalars_stay_what_they_are(text):
    assert resolve_strings({"train": [text]}) == {"train": [text or None]}


@given(st.integers(-(2**63) + 1, 2**63 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False))
def test_strings_read_as_yaml_scalars(value):
    assert resolve_strings({"a": [str(value).lower() if isinstance(value, bool) else repr(value)]}) == {"a": [value]}


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 512), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_expansion_is_the_product_with_distinct_ids(ranks, batches, seeds):
    found = runs(sweep={"rank": ranks, "batch": batches, "seed": seeds})
    assert len(found) == 3 * len(ranks) * len(batches) * len(seeds)
    assert len({run.id for run in found}) == len(found)
    assert all(set(run.id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for run in found)


def test_ids_do_not_drift():
    """Results are found again by these names: a change here orphans every finished run."""
    assert runs()[0].id == "A-r4-b2x1-fp32-s0-83e22a65"
    assert json.loads(canonical(runs()[0].axes)) == {
        "strategy": "A", "rank": 4, "batch": 2, "accumulation": 1, "precision": "fp32", "gpus": 1, "seed": 0,
    }  # fmt: skip


def test_gpus_are_spread_evenly_over_nodes():
    changes = {"compute": {"nodes": 2}, "sweep": {"gpus": [2, 4]}, "keep": [], "scale": "demo"}
    assert {run.settings.compute.nodes for run in expand(load_study(STUDY, changes), "s")} == {2}
    with pytest.raises(UserError, match=r"3 GPUs cannot be spread evenly over compute\.nodes: 2"):
        expand(load_study(STUDY, {**changes, "sweep": {"gpus": 3}}), "s")


@pytest.mark.parametrize("scale", ["demo", "full"])
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_first_names_of_patterns_are_those_of_the_network(path, scale):
    """They are checked without building it."""
    found = load_study(path, {"scale": scale}).settings
    with torch.device("meta"):
        network = load_system(found).build()
    assert {name for name, _ in network.named_children()} == set(found.networks)


@pytest.mark.parametrize("key", ["lora", "full"])
def test_a_pattern_that_begins_with_no_module_is_an_error_when_the_study_is_read(key):
    train = {"lora": None, "full": None, key: ["depth_head.scratch", "agregator.frame_blocks"]}
    with pytest.raises(UserError, match=rf"strategies.A.train.{key}: the network has no 'agregator.*did you mean aggregator"):
        runs(strategies={"A": {"train": train}})
    assert runs(strategies={"A": {"train": {**train, key: ["*_head", "*"]}}})
