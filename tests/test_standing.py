"""Where a run stands is read from its folder, and from the content of what it reads; a plan knows what it was made from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablation.changes import Change, changed_settings
from ablation.errors import UserError
from ablation.files import digest, write_csv, write_json
from ablation.manifest import hashes_of, settings_hash, settings_of
from ablation.outlook import outlook
from ablation.planned import COLUMN, is_current, kept_key, key_of
from ablation.seal import FILE, outdated, seal, seal_needs
from ablation.standing import AGAIN, EVALUATE, FINISHED, NEW, RESUME, InputFolders, base_holds, standing_of
from ablation.state import State
from ablation.sweep import Run, expand


@pytest.fixture
def run(demo_study, tmp_path, monkeypatch) -> Run:
    """A run of the demo, whose weights and data are there."""
    monkeypatch.chdir(tmp_path)
    run = expand(demo_study, "vggt-eth3d")[0]
    for path in run.settings.weight_files().values():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("weights")
    for part in run.settings.parts():
        write_json(tmp_path / "data" / part.id / FILE, {"part": part.name})
    return run


@pytest.fixture
def folders(tmp_path) -> InputFolders:
    return InputFolders(tmp_path / "data", tmp_path / "hashes")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run"


def inputs_of(run: Run, folders: InputFolders) -> dict:
    weights = {name: hashes_of(Path(path), None) for name, path in run.settings.weight_files().items()}
    return {"weights": weights, "data": {part.id: digest(folders.data / part.id / FILE) for part in run.settings.parts()}}


def publish(run: Run, folder: Path, folders: InputFolders) -> None:
    """As a finished run does."""
    told = {
        "settings": settings_of(run),
        "settings_sha256": settings_hash(run.training_view),
        "inputs": inputs_of(run, folders),
    }
    write_json(folder / "manifest.json", json.loads(json.dumps(told)))
    write_json(folder / "metrics.json", {})


def with_rate(run: Run, rate: float) -> Run:
    return replace(run, strategy=run.strategy.model_copy(update={"lr": rate}))


def test_what_is_published_is_finished_until_something_it_depends_on_has_another_content(run, folder, folders):
    assert standing_of(run, folder, folders).state == NEW
    publish(run, folder, folders)
    assert standing_of(run, folder, folders).state == FINISHED
    (weights,) = map(Path, run.settings.weight_files().values())
    weights.unlink()
    other = InputFolders(folders.data, folders.hashes.with_name("other"))  # where nothing is remembered
    assert standing_of(run, folder, other).state == FINISHED, "weights that are not there are not known to differ"
    weights.write_text("others")
    found = standing_of(run, folder, InputFolders(folders.data, folders.hashes.with_name("third")))
    assert found.state == AGAIN and [change.name for change in found.changes] == ["weights (weights)"]


def test_a_changed_setting_is_named_as_the_study_file_names_it(run, folder, folders):
    publish(run, folder, folders)
    found = standing_of(with_rate(run, 0.25), folder, folders)
    assert found.state == AGAIN and found.changes == (Change("strategies.A.lr", 0.002, 0.25),)
    assert found.changes[0].swept == "sweep: {strategies.A.lr: [0.002, 0.25]}"


def test_a_changed_evaluation_needs_what_was_trained(run, folder, folders):
    """Where the checkpoints' folder was purged, nothing is left to evaluate."""
    publish(run, folder, folders)
    evaluation = run.settings.evaluation.model_copy(update={"pictures": 7})
    changed = replace(run, settings=run.settings.model_copy(update={"evaluation": evaluation}))
    assert standing_of(changed, folder, folders).state == AGAIN
    State(folder).take("f" * 64, run.training_view, inputs_of(run, folders))
    write_json(folder / "state/result.json", {})
    assert standing_of(changed, folder, folders).state == EVALUATE


def test_a_checkpoint_counts_for_the_settings_that_it_has(run, folder, folders):
    State(folder).take("f" * 64, run.training_view, inputs_of(run, folders))
    (folder / "state/step-00000040").mkdir()
    found = standing_of(run, folder, folders)
    assert (found.state, found.steps) == (RESUME, 40)
    assert standing_of(with_rate(run, 0.25), folder, folders).state == AGAIN


def test_the_outlook_counts_runs_and_steps_and_says_how_both_results_are_kept(run, folder, folders, tmp_path):
    runs = {run.id: run, "left-out": replace(run, id="left-out")}
    publish(with_rate(run, 0.25), tmp_path / "runs" / run.id, folders)
    stands = {run.id: standing_of(run, tmp_path / "runs" / run.id, folders)}
    said = outlook("study", runs, {run.id: "fits", "left-out": "oom"}, ["fits", "tight"], lambda one: stands[one.id])
    assert said.splitlines() == [
        f"study: 2 runs: 1 to be trained again, 1 not sent (oom); {run.settings.training.steps} optimizer steps",
        "  1 trained again, and replaced: strategies.A.lr 0.25 -> 0.002",
        "    to keep both results: leave strategies.A.lr as it was and add sweep: {strategies.A.lr: [0.25, 0.002]}",
    ]


def test_a_changed_list_is_said_as_well(run, folder, folders, tmp_path):
    """What cannot be hashed must not hide a run that is trained again."""
    publish(run, folder, folders)
    train = run.strategy.train.model_copy(update={"lora": ["camera_head"]})
    other = replace(run, strategy=run.strategy.model_copy(update={"train": train}))
    found = standing_of(other, folder, folders)
    assert found.state == AGAIN
    said = outlook("study", {run.id: other}, {run.id: "fits"}, ["fits"], lambda _: found).splitlines()
    assert said[1].startswith("  1 trained again, and replaced: strategies.A.train.lora [") and "a name of its own" in said[2]


def test_a_damaged_manifest_is_one_line(run, folder, folders):
    publish(run, folder, folders)
    write_json(folder / "manifest.json", {"settings": [], "settings_sha256": "", "inputs": {}})
    with pytest.raises(UserError, match=r"manifest\.json: is damaged .* remove .* to have the run trained again"):
        standing_of(run, folder, folders)


def test_the_evaluation_of_the_pretrained_model_is_of_its_weights(run, folders, tmp_path):
    path = tmp_path / "metrics.json"
    assert base_holds(run, path, folders)
    write_json(path, {"metrics": {}})
    assert base_holds(run, path, folders), "an older one does not tell"
    write_json(path, {"inputs": inputs_of(run, folders)})
    assert base_holds(run, path, folders)
    write_json(path, {"inputs": {"weights": {"weights": {}}, "data": {}}})
    assert not base_holds(run, path, folders)


def test_a_part_is_outdated_when_what_it_was_made_from_has_another_content(tmp_path):
    need, part = tmp_path / "need", tmp_path / "part"
    for folder in (need, part):
        folder.mkdir()
        (folder / "content").write_text("before")
        seal(folder)
    assert not outdated(part), "an older one does not tell"
    seal_needs(part, [need])
    seal(need)
    assert not outdated(part) and list(json.loads((part / FILE).read_text())) == ["content"]
    (need / "content").write_text("after")
    seal(need)
    assert outdated(part)


names = st.lists(st.text("abc/", min_size=1), unique=True)


@given(st.text(), st.text(), names, names)
def test_a_plan_holds_for_the_same_study_and_what_was_found_then(tmp_path_factory, said, other, found, now):
    plan = tmp_path_factory.mktemp("plan") / "plan.csv"
    assert not is_current(plan, key_of(said, now))
    write_csv(plan, [{"run": "a", "verdict": "fits", COLUMN: key_of(said, found)}])
    assert is_current(plan, key_of(said, now)) == (set(now) <= set(found))
    assert is_current(plan, key_of(other, found)) == (said == other)
    assert kept_key(plan, key_of(said, [])) == key_of(said, found)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)))
def test_changes_are_those_of_the_values(before, now):
    old, new = ({"axes": {"strategy": "A"}, "strategy": {}, "settings": {"group": one}} for one in (before, now))
    changes = changed_settings(old, new)
    assert {change.name for change in changes} == {
        f"group.{name}" for name in before.keys() | now.keys() if before.get(name) != now.get(name)
    }
    assert changed_settings(new, old) == [Change(name, now, before) for name, before, now in changes]
