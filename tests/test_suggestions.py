"""What an error suggests: the place of a setting that is written elsewhere, the line as it can be read; and it is taken."""

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, STUDY

from ablation.errors import UserError
from ablation.parsed import parse_studies
from ablation.places import ELSEWHERE, all_places, named, placed, without
from ablation.study import AXES, find_studies, load_study, study_model
from ablation.systems import SYSTEMS
from ablation.yamlfile import load_yaml, merge, parse_yaml

STUDIES = sorted((ROOT / "config/studies").glob("*.yaml"))


def refusal(changes: dict[str, Any], path: Path = STUDY) -> str:
    with pytest.raises(UserError) as caught:
        load_study(path, changes)
    return str(caught.value)


def corrected(message: str) -> Any:
    """The YAML that a message gives as correct."""
    return parse_yaml(message.partition("corrected:\n")[2])


# What is written, and what is said to be meant.
MEANT = {
    "lr: 1e-3": {"strategies": {"A": {"lr": 1e-3}}},
    "lr: [1e-3, 1e-4]": {"sweep": {"strategies.A.lr": [1e-3, 1e-4]}},
    "learning_rate: 1e-3": {"strategies": {"A": {"lr": 1e-3}}},
    "training: {lr: 1e-3}": {"strategies": {"A": {"lr": 1e-3}}},
    "training: {learning_rate: 1e-3}": {"strategies": {"A": {"lr": 1e-3}}},
    "strategies: {B: {learning_rate: 1e-3}}": {"strategies": {"B": {"lr": 1e-3}}},
    "strategies: {B: {rank: 8}}": {"sweep": {"rank": 8}},
    "gradient_checkpointing: true": {"strategies": {"A": {"gradient_checkpointing": True}}},
    "training: {gradient_checkpointing: true}": {"strategies": {"A": {"gradient_checkpointing": True}}},
    "rank: 8": {"sweep": {"rank": 8}},
    "ranks: [4, 8]": {"sweep": {"rank": [4, 8]}},
    "batch: 2": {"sweep": {"batch": 2}},
    "batch_size: 2": {"sweep": {"batch": 2}},
    "training: {batch_size: 2}": {"sweep": {"batch": 2}},
    "grad_accum: 2": {"sweep": {"accumulation": 2}},
    "precision: bf16": {"sweep": {"precision": "bf16"}},
    "seed: 1": {"sweep": {"seed": 1}},
    "steps: 10": {"training": {"steps": 10}},
    "epochs: 2": {"training": {"epochs": 2, "steps": None}},
    "training: {num_epochs: 2}": {"training": {"epochs": 2, "steps": None}},
    "resolution: [84, 112]": {"data": {"resolution": [84, 112]}},
    "weights: mine.safetensors": {"model": {"weights": "mine.safetensors"}},
    "train: {lora: [depth_head]}": {"strategies": {"A": {"train": {"lora": ["depth_head"]}}}},
    "train: {steps: 10}": {"training": {"steps": 10}},
    "trainng: {steps: 10}": {"training": {"steps": 10}},
}


@pytest.mark.parametrize("written", MEANT)
def test_a_setting_that_is_written_elsewhere_is_suggested_where_it_belongs(written):
    message = refusal(parse_yaml(written))
    assert corrected(message) == MEANT[written], message
    load_study(STUDY, corrected(message))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("lr: fast", "there is strategies.A.lr, which does not take 'fast'"),
        ("epochs: x", "there is training.epochs, which does not take 'x'"),
        ("data: {resolutoin: 3}", "there is data.resolution, which does not take 3"),
        ("lora_alpha: 3", "known here: baseline"),
    ],
)
def test_what_would_be_refused_is_not_suggested(written, said):
    message = refusal(parse_yaml(written))
    assert said in message and "did you mean" not in message and "corrected" not in message


@pytest.mark.parametrize(
    ("axis", "meant"),
    [
        ("training.lr", "strategies.A.lr"), ("lr", "strategies.A.lr"), ("learning_rate", "strategies.A.lr"),
        ("training.clp", "training.clip"), ("trainig.clip", "training.clip"), ("clip", "training.clip"),
        ("rnk", "rank"), ("training.rank", "rank"), ("batch_size", "batch"), ("strategies.Z.lr", "strategies.A.lr"),
    ],
)  # fmt: skip
def test_an_axis_is_suggested_by_its_whole_name(axis, meant):
    message = refusal({"sweep": {axis: [1]}})
    assert message == f"--config: sweep.{axis}: no such axis or setting; did you mean {meant}?"
    load_study(STUDY, {"sweep": {meant: [1]}})


@pytest.mark.parametrize("axis", ["lr", "training.lr", "rnk", "trainng.clip"])
def test_an_axis_that_does_not_take_the_values_is_not_suggested(axis):
    assert "did you mean" not in refusal({"sweep": {axis: ["fast"]}})


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_setting_of_a_study_is_found_from_its_top_and_the_suggestion_is_taken(path):
    """Each that has a plain value, under its bare name, where another study or a sweep does not say so already."""
    content = load_study(path).model_dump(mode="json")
    model, tried = study_model(content["system"]), 0
    for place in all_places(model, content):
        value: Any = content
        for step in place:
            value = value.get(step) if isinstance(value, dict) else None
        name = place[-1]
        if len(place) > 1 and name not in model.model_fields and value is not None and not isinstance(value, (dict, list)):
            message, tried = refusal({name: value}, path), tried + 1
            assert len(named(model, name, content)) > 1 or f"did you mean {'.'.join(place)}" in message, message
            load_study(path, corrected(message))
    assert tried > 30


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_slip_of_the_pen_is_mended_where_it_is(path):
    content = load_study(path).model_dump(mode="json", exclude_unset=True)
    places = [*all_places(study_model(content["system"]), content)]
    for place in [place for place in places if len(place[-1]) > 4]:
        try:
            _, value = without(content, place)
        except (LookupError, AttributeError, TypeError):
            continue  # not set
        slip = (*place[:-1], place[-1][:2] + place[-1][3:])
        if slip in places:
            continue  # robot without its b is root
        message = refusal(placed({}, [(slip, value)]), path)
        assert "did you mean" in message, message
        load_study(path, corrected(message))


def test_what_other_programs_call_a_setting_is_a_setting_of_ours():
    ours = {place[-1] for system in SYSTEMS for place in all_places(study_model(system), {"strategies": {"A": {}}})} | {*AXES}
    assert set(ELSEWHERE.values()) <= ours and not set(ELSEWHERE) & ours


@pytest.mark.parametrize(
    ("name", "meant"), [("study", "studies"), ("studdies", "studies"), ("refrence", "reference"), ("run", "runs")]
)
def test_what_is_no_setting_of_a_study_is_suggested_too(name, meant):
    with pytest.raises(UserError, match=rf"^--config: {name}: no such setting; did you mean {meant}\?$"):
        parse_studies({"studies": "vggt-eth3d", name: "dit-images"}, ROOT / "config")


@pytest.mark.parametrize("name", ["steps", "stratgies", "ranks", "rules"])
def test_a_setting_is_not_taken_for_what_is_none(name):
    with pytest.raises(UserError) as caught:
        parse_studies({"studies": "vggt-eth3d", name: 3}, ROOT / "config")
    assert not any(f"did you mean {other}" in str(caught.value) for other in ("studies", "runs", "reference"))


@pytest.mark.parametrize("written", ["vggt-eth3d,dit-images", "vggt-eth3d, dit-images", "vgt-eth3d,dit-imags"])
def test_several_studies_are_written_as_a_list(written):
    with pytest.raises(UserError, match=r"write 'studies=\[vggt-eth3d, dit-images\]'"):
        find_studies(written, ROOT / "config/studies")
    assert list(find_studies(parse_yaml("[vggt-eth3d, dit-images]"), ROOT / "config/studies")) == ["vggt-eth3d", "dit-images"]


COLON, TAB, MARK = (
    "quote a value that holds ': '",
    "write spaces, not tabs",
    "quote a value that begins with a special character",
)
LINES = {
    "title: first: LoRA rank": (COLON, {"title": "first: LoRA rank"}),
    "title: it's: LoRA  # a comment": (COLON, {"title": "it's: LoRA"}),
    "a: {title: first: x, b: 2}": (COLON, {"a": {"title": "first: x", "b": 2}}),
    "- title: a: b": (COLON, [{"title": "a: b"}]),
    "a:\n\tsteps: 10": (TAB, {"a": {"steps": 10}}),
    "a:\n  b: 1\n\tc: 2": (TAB, {"a": {"b": 1, "c": 2}}),
    "lora: [*.qkv, b, *]": (MARK, {"lora": ["*.qkv", "b", "*"]}),
    "lora:\n  - *.qkv\n  - b": (MARK, {"lora": ["*.qkv", "b"]}),
    "A: {train: {lora: [*.qkv]}, lr: 1}": (MARK, {"A": {"train": {"lora": ["*.qkv"]}, "lr": 1}}),
    "title: `x`": (MARK, {"title": "`x`"}),
}


@pytest.mark.parametrize("text", LINES)
def test_a_line_that_cannot_be_read_is_given_as_it_can(tmp_path, text):
    why, value = LINES[text]
    path = tmp_path / "a.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        load_yaml(path)
    message = str(caught.value)
    assert f"; {why}\n" in message
    number = int(message.removeprefix(f"{path}:").partition(":")[0]) - 1
    lines = text.splitlines()
    path.write_text("\n".join([*lines[:number], message.partition("corrected:\n    ")[2], *lines[number + 1 :]]))
    assert load_yaml(path) == value


@pytest.mark.parametrize("text", ["x: [a, b\ny: 1", "x: 'a\ny: 2", "a: 1\n b: 2", "x: !foo", "a:1\nb: 2", "{", "x: 'it's'"])
def test_what_no_single_line_mends_is_given_no_correction(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match="not valid YAML") as caught:
        load_yaml(tmp_path / "a.yaml")
    assert "corrected" not in str(caught.value)


def test_a_correction_is_laid_over_what_is_there():
    content = {"a": [{"b": 1}, {"c": 2}], "d": {"e": 3}}
    assert placed(content, [(("a", 1, "c"), 4), (("d", "f"), None)]) == {"a": [{"b": 1}, {"c": 4}], "d": {"e": 3, "f": None}}
    assert content == merge(content, {})
