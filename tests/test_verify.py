"""What a run that was trained again is held against, and what is said where it differs; for real: test_verify_example.py."""

import json
import shutil

import pytest
from conftest import ROOT
from verify_run import told

from ablation.errors import UserError
from ablation.files import write_json
from ablation.manifest import settings_hash
from ablation.parsed import parse_studies
from ablation.provenance import code_hash
from ablation.verify.again import DIFFERS, EQUAL, TOLERANCE, WITHIN, by_this_program, compare_run
from ablation.verify.choice import chosen, device_of
from ablation.verify.records import check_run
from ablation.yamlfile import dump_yaml

HISTORY = "step,loss,seconds\n1,2.0,0.1\n2,1.5,0.1\n3,1.0,0.1\n"
VIEW = {"id": "A", "axes": {"seed": 0}, "strategy": {}, "settings": {"training": {"steps": 3, "clip": 1.0}}}
MANIFEST = {
    "schema": 2, "settings": {**VIEW, "axes": {"seed": 0}}, "settings_sha256": settings_hash(VIEW),
    "inputs": {"weights": {"unet": {"a.safetensors": {"sha256": "aa", "bytes": 2}}}, "data": {"scene-yard-1": "bb"}},
    "host": "one", "cpu": "A", "packages": {"torch": "2.13.0"}, "written": "2026", "device": {"type": "cpu", "threads": 1},
    "code": {"commit": "0123"}, "files": {"adapter/weights": "cc"},
}  # fmt: skip
RECORD = {
    "run": "A", "outcome": "completed", "device": "cpu", "steps": 3, "saved": "adapter", "time": {"load_s": 1.0},
    "memory": {"peak_allocated_gib": 0.5, "peak_resident_gib": 1.0}, "metrics": {"mae": 0.5}, "metrics_before": {"mae": 1.0},
    "items": [{"item": "yard", "mae": 0.5}], "items_before": [{"item": "yard", "mae": 1.0}],
}  # fmt: skip


@pytest.fixture
def first(tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    write_json(folder / "metrics.json", RECORD)
    write_json(folder / "training.json", {name: RECORD[name] for name in ("run", "outcome", "steps", "time")})
    write_json(folder / "manifest.json", MANIFEST)
    (folder / "run.yaml").write_text(dump_yaml(VIEW))
    (folder / "history.csv").write_text(HISTORY)
    return folder


@pytest.fixture
def second(first):
    return shutil.copytree(first, first.with_name("second"))


def changed(folder, name, **values):
    path = folder / name
    write_json(path, {**json.loads(path.read_text()), **values})


def differences(verdict):
    return {found.what: found.said for found in verdict.findings if found.said}


def test_what_takes_another_time_is_the_same_run(first, second):
    changed(second, "metrics.json", time={"load_s": 2.0}, memory={"peak_allocated_gib": 0.5, "peak_resident_gib": 1.1})
    changed(second, "manifest.json", host="two", written="2027", code={"commit": "4567"})
    (second / "history.csv").write_text(HISTORY.replace("0.1", "0.2"))
    verdict = compare_run(first, second)
    assert verdict.word == EQUAL and differences(verdict) == {}
    assert [found.what for found in verdict.findings] == [
        "settings", "objective", "weights", "data", "outcome", "losses", "trained weights", "metrics", "items", "memory",
        "record",
    ]  # fmt: skip
    assert told({"A": verdict}) == "  equal  A"


def test_what_another_program_trained_again_is_no_proof(first):
    again = first.parent / "again"
    shutil.copytree(first, again / "runs/A")
    changed(again / "runs/A", "manifest.json", code={"program_sha256": code_hash()})
    by_this_program(again, "A")
    changed(again / "runs/A", "manifest.json", code={"program_sha256": "0" * 64})
    with pytest.raises(UserError, match=f"^A: the workflow has changed since .*; remove {again} and start once more$"):
        by_this_program(again, "A")


def test_the_first_step_that_differs_is_named_with_how_much(first, second):
    (second / "history.csv").write_text(HISTORY.replace("1.5", "1.500001"))
    verdict = compare_run(first, second)
    assert verdict.word == DIFFERS and differences(verdict) == {
        "losses": "first at step 2, loss: 1.5 then, 1.500001 now (6.7e-07 relative)"
    }
    (second / "history.csv").write_text("step,loss,seconds\n1,2.0,0.1\n")
    assert differences(compare_run(first, second)) == {"losses": "3 steps then, 1 now"}


ELSEWHERE = [
    {"cpu": "B"},
    {"cpu_capability": "AVX2"},
    {"arithmetic": "another order of sums"},
    {"packages": {"torch": "2.14.0"}},
    {"device": {"type": "cpu", "threads": 2}},
]


@pytest.mark.parametrize("around", ELSEWHERE)
def test_tolerance_is_for_another_platform_and_is_never_called_equal(first, second, around):
    (second / "history.csv").write_text(HISTORY.replace("1.5", "1.500001"))
    changed(second, "manifest.json", **around, files={"adapter/weights": "dd"})
    assert compare_run(first, first).word == EQUAL
    verdict = compare_run(first, second)
    assert verdict.word == WITHIN and differences(verdict)["trained weights"] == "adapter/weights not the same bytes"
    (name,) = around
    assert len(verdict.reasons) == 1 and verdict.reasons[0].startswith(name) and " then, " in verdict.reasons[0]
    assert f"not the same: {name}" in told({"A": verdict}) and "Tolerance between platforms" in told({"A": verdict})
    far = 1.5 + 2 * 1.5 * TOLERANCE["losses"]
    (second / "history.csv").write_text(HISTORY.replace("1.5", str(far)))
    assert compare_run(first, second).word == DIFFERS


def test_a_processor_of_the_same_name_may_round_otherwise(first, second):
    """Of an older manifest nothing is known but the name; bits that are equal are equal all the same."""
    changed(second, "manifest.json", arithmetic="ab12")
    assert compare_run(first, second).word == EQUAL
    (second / "history.csv").write_text(HISTORY.replace("1.5", "1.500001"))
    verdict = compare_run(first, second)
    assert verdict.word == WITHIN and verdict.reasons == ["arithmetic: not recorded then, ab12 now"]
    changed(first, "manifest.json", arithmetic="ab12")
    assert compare_run(first, second).word == DIFFERS


def test_what_is_furthest_is_named_beside_what_is_first(first, second):
    """On another platform all steps differ a little from the first on: the one that was tampered with is another."""
    changed(second, "manifest.json", arithmetic="another order of sums")
    (second / "history.csv").write_text(HISTORY.replace("2.0", "2.0001").replace("1.5", "4.5"))
    changed(second, "metrics.json", metrics={"mae": 0.5001}, metrics_before={"mae": 3.0})
    verdict = compare_run(first, second)
    assert verdict.word == DIFFERS and differences(verdict) == {
        "losses": "first at step 1, loss: 2.0 then, 2.0001 now (5.0e-05 relative); "
        "furthest at step 2, loss: 1.5 then, 4.5 now (6.7e-01 relative)",
        "metrics": "2 of 2, first metrics.mae: 0.5 then, 0.5001 now (2.0e-04 relative); "
        "furthest metrics_before.mae: 1.0 then, 3.0 now (6.7e-01 relative)",
    }


def test_on_a_gpu_bits_are_not_expected(first, second):
    gpu = {"device": {"type": "cuda", "name": "A"}}
    for folder in (first, second):
        changed(folder, "manifest.json", **gpu)
    assert compare_run(first, second).word == EQUAL
    (second / "history.csv").write_text(HISTORY.replace("1.5", "1.500001"))
    assert compare_run(first, second).word == WITHIN


@pytest.mark.parametrize(
    ("name", "values", "what", "said"),
    [
        ("metrics.json", {"metrics": {"mae": 0.25}}, "metrics", "1 of 2, first metrics.mae: 0.5 then, 0.25 now (5.0e-01"),
        ("metrics.json", {"items": []}, "items", "2 of 4, first items.0.item: yard then, None now"),
        ("metrics.json", {"outcome": "diverged"}, "outcome", "1 of 1, first outcome: completed then, diverged now"),
        ("metrics.json", {"steps": 4}, "record", "first steps: 3 then, 4 now"),
        ("metrics.json", {"memory": {"peak_allocated_gib": 0.6}}, "memory", "first memory.peak_allocated_gib"),
        ("manifest.json", {"files": {"adapter/weights": "dd"}}, "trained weights", "adapter/weights not the same bytes"),
        ("manifest.json", {"inputs": {**MANIFEST["inputs"], "weights": {}}}, "weights", "unet.a.safetensors.bytes"),
        ("manifest.json", {"inputs": {**MANIFEST["inputs"], "data": {}}}, "data", "scene-yard-1 not the same bytes"),
    ],
)  # fmt: skip
def test_any_other_value_differs_and_is_named(first, second, name, values, what, said):
    changed(second, name, **values)
    verdict = compare_run(first, second)
    assert verdict.word == DIFFERS and said in differences(verdict)[what]


def test_another_setting_differs_and_is_named(first, second):
    (second / "run.yaml").write_text(dump_yaml({**VIEW, "settings": {"training": {"steps": 3, "clip": 2.0}}}))
    assert differences(compare_run(first, second)) == {
        "settings": "1 of 4, first settings.training.clip: 1.0 then, 2.0 now (5.0e-01 relative)"
    }


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("metrics.json", {"outcome": "oom"}),
        ("manifest.json", {"inputs": {**MANIFEST["inputs"], "weights": {"unet": {}}}}),
    ],
)
def test_no_platform_excuses_other_settings_weights_or_outcomes(first, second, name, values):
    changed(second, "manifest.json", cpu="B")
    changed(second, name, **values)
    assert compare_run(first, second).word == DIFFERS


def test_a_setting_that_nobody_could_set_then_is_told_and_is_no_difference(first, second):
    view = {**VIEW, "settings": {"training": {**VIEW["settings"]["training"], "fresh": 0.0}}}
    (second / "run.yaml").write_text(dump_yaml(view))
    verdict = compare_run(first, second)
    assert verdict.word == EQUAL and verdict.reasons == ["settings: settings.training.fresh: unknown then, 0.0 now"]


def test_a_manifest_of_schema_1_is_compared_as_far_as_it_goes(first, second):
    """It knew no hashes: the files themselves are compared."""
    for folder in (first, second):
        (folder / "adapter").mkdir()
        (folder / "adapter/weights").write_bytes(b"\0\1")
    old = {name: MANIFEST[name] for name in ("host", "cpu", "packages", "written", "device", "code")}
    write_json(first / "manifest.json", {"schema": 1, **old})
    changed(second, "manifest.json", files={})
    assert differences(compare_run(first, second)) == {"trained weights": "adapter/weights not the same bytes"}
    write_json(second / "manifest.json", {"schema": 1, **old})
    assert compare_run(first, second).word == EQUAL
    assert not any(found.said for found in check_run(first))
    (second / "adapter/weights").write_bytes(b"\0\2")
    assert differences(compare_run(first, second)) == {"trained weights": "adapter/weights not the same bytes"}


def test_records_of_one_run_that_do_not_agree_are_named(first):
    assert not any(found.said for found in check_run(first))
    (first / "adapter").mkdir()
    (first / "adapter/weights").write_bytes(b"swapped")
    changed(first, "training.json", time={"load_s": 0.5})
    changed(first, "manifest.json", settings={**VIEW, "axes": {"seed": 1}})
    said = {found.what: found.said for found in check_run(first)}
    assert said["manifest.json"] == "1 of 3, first axes.seed: 1 in it, 0 in run.yaml (1.0e+00 relative)"
    (first / "run.yaml").write_text(dump_yaml({**VIEW, "id": "B"}))
    said = {found.what: found.said for found in check_run(first)}
    assert said["files"] == "adapter/weights not the same bytes" and "settings_sha256" in said["run.yaml"]
    assert said["training.json"].startswith("1 of 4, first time.load_s: 0.5 in it, 1.0 in metrics.json")


@pytest.fixture
def finished(tmp_path):
    """Three runs: the first was slow, the last diverged; a fourth was never trained."""
    for run, outcome, seconds in (("slow", "completed", 9.0), ("quick", "completed", 1.0), ("bad", "diverged", 0.1)):
        folder = tmp_path / "runs" / run
        folder.mkdir(parents=True)
        write_json(folder / "metrics.json", {"outcome": outcome})
        write_json(folder / "training.json", {"device": "cpu"})
        write_json(folder / "manifest.json", {"times": {"seconds": seconds}})
    return tmp_path


RUNS = ["slow", "quick", "bad", "never"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (1, ["quick"]), ("2", ["quick", "slow"]), (9, ["quick", "slow", "bad"]), ("all", ["slow", "quick", "bad"]),
        ("bad", ["bad"]), ("bad,slow,bad", ["bad", "slow"]), (["slow"], ["slow"]),
    ],
)  # fmt: skip
def test_runs_are_chosen_by_id_number_or_all(finished, wanted, found):
    assert chosen(finished, RUNS, wanted) == found and device_of(finished) == "cpu"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("quik", "did you mean quick"),
        ("never", "holds no result"),
        (0, "at least one"),
        ({}, "give a number"),
        ("", "no result"),
    ],
)
def test_what_cannot_be_chosen_is_refused(finished, wanted, said):
    with pytest.raises(UserError, match=said):
        chosen(finished, RUNS, wanted)
    with pytest.raises(UserError, match="nothing to verify"):
        chosen(finished / "elsewhere", RUNS, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"), ("{", "cannot be read"), ("[]", "no resolved study"),
        ('{"name": "../x", "study": {}}', "no resolved"), ('{"name": "x", "study": {"system": "sun"}}', "no such system"),
        ('{"name": "x", "study": {"system": "vggt"}}', "training"),
    ],
)  # fmt: skip
def test_a_reference_that_is_none_is_named(tmp_path, content, said):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match=said):
        parse_studies({"reference": str(tmp_path)}, ROOT / "config")


def test_a_reference_is_trained_as_it_was():
    config = {"studies": ["nobody"], "scale": "demo", "reference": str(ROOT / "docs/example"), "runs": "all"}
    parsed = parse_studies(config, ROOT / "config")
    assert list(parsed.studies) == ["vggt-eth3d"] and len(parsed.runs["vggt-eth3d"]) == 12 and parsed.verified == "all"
    with pytest.raises(UserError, match="leave out sweep"):
        parse_studies({**config, "sweep": {"rank": 2}}, ROOT / "config")
    with pytest.raises(UserError, match="give the folder"):
        parse_studies({**config, "reference": 3}, ROOT / "config")
