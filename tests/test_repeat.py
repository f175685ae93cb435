"""What a repetition is held against, and what is said where it differs. That a run is equal: tests/test_workflow.py."""

import json
import shutil

import pytest
from conftest import STUDY

from ablation.errors import UserError
from ablation.files import write_json
from ablation.repeat import Repetition, circumstances, compare
from ablation.resolved import save_study
from ablation.study import load_study
from ablation.sweep import expand
from ablation.yamlfile import dump_yaml

HISTORY = "step,loss,seconds\n1,2.0,0.1\n2,1.5,0.1\n3,1.0,0.1\n"


@pytest.fixture
def first(tmp_path):
    folder = tmp_path / "first"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/weights").write_bytes(b"\0\1")
    metrics = {"metrics": {"mae": 0.5}, "items": [{"item": "yard", "mae": 0.5}]}
    write_json(folder / "metrics.json", {"outcome": "completed", "saved": "adapter", "time": {"load_s": 1.0}, **metrics})
    write_json(folder / "manifest.json", {"host": "one", "cpu": "A", "packages": {"torch": "2.13.0"}, "written": "2026"})
    (folder / "history.csv").write_text(HISTORY)
    return folder


@pytest.fixture
def second(first):
    return shutil.copytree(first, first.with_name("second"))


def changed(folder, **values):
    path = folder / "metrics.json"
    write_json(path, {**json.loads(path.read_text()), **values})


def differences(first, second):
    return {what: text for what, text in compare(first, second) if text}


def test_what_takes_another_time_is_the_same_run(first, second):
    changed(second, time={"load_s": 2.0})
    (second / "history.csv").write_text(HISTORY.replace("0.1", "0.2"))
    assert differences(first, second) == {}
    assert [what for what, _ in compare(first, second)] == ["outcome", "losses", "trained weights", "metrics", "items"]


def test_the_first_step_that_differs_is_named_with_how_much(first, second):
    (second / "history.csv").write_text(HISTORY.replace("1.5", "1.500001"))
    assert differences(first, second) == {"losses": "first at step 2, loss: 1.5 then, 1.500001 now (6.7e-07 relative)"}
    (second / "history.csv").write_text("step,loss,seconds\n1,2.0,0.1\n")
    assert differences(first, second) == {"losses": "3 steps then, 1 now"}


def test_a_byte_of_the_weights_a_file_more_and_a_metric(first, second):
    (second / "adapter/weights").write_bytes(b"\0\2")
    (second / "adapter/more").touch()
    changed(second, metrics={"mae": 0.25}, items=[])
    found = differences(first, second)
    assert found["trained weights"] == "more, weights not the same bytes"
    assert found["metrics"] == "1 of 1, first metrics.mae: 0.5 then, 0.25 now (5.0e-01 relative)"
    assert found["items"].startswith("2 of 2, first items.0.item: yard then, None now")


def test_another_outcome_without_weights(first, second):
    shutil.rmtree(second / "adapter")
    changed(second, outcome="diverged", metrics={}, items=[])
    found = differences(first, second)
    assert found["outcome"] == "completed then, diverged now" and "weights" in found["trained weights"]


def test_circumstances_are_those_that_may_change_numbers(first, second):
    write_json(second / "manifest.json", {"host": "two", "cpu": "A", "packages": {"torch": "2.14.0"}, "written": "2027"})
    assert circumstances(first, second) == ["packages.torch: 2.13.0 then, 2.14.0 now"]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A study whose first run has a result and all its inputs."""
    study = load_study(STUDY)
    run = expand(study, "s")[0]
    folder = tmp_path / "results/demo/s"
    save_study(folder / "study.json", "s", study)
    monkeypatch.chdir(tmp_path)
    for path in run.settings.weight_files().values():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for part in run.settings.parts():
        (tmp_path / "results/demo/data" / part.id).mkdir(parents=True)
    for path in (folder / "base" / run.base, folder / "runs" / run.id):
        path.mkdir(parents=True)
        write_json(path / "metrics.json", {})
    (folder / "runs" / run.id / "run.yaml").write_text(dump_yaml(run.training_view))
    write_json(folder / "runs" / run.id / "training.json", {"device": "cpu"})
    return folder, run


def test_a_repetition_reads_what_the_run_read_and_writes_beside_it(recorded):
    folder, run = recorded
    train, evaluate = Repetition(folder / "study.json", run.id).commands()
    for command in (train, evaluate):
        assert command[command.index("--data") + 1] == str(folder.parent / "data" / run.settings.parts()[0].id)
        assert command[command.index("--weights") + 1] == "weights=resources/vggt-demo.safetensors"
        assert command[command.index("--device") + 1] == "cpu"
    assert train[train.index("--folder") + 1] == str(folder / "repeated" / run.id)
    assert evaluate[evaluate.index("--output") + 1] == str(folder / "repeated" / run.id / "metrics.json")


def test_what_cannot_be_repeated_is_refused_with_the_reason(recorded):
    folder, run = recorded
    study, own = folder / "study.json", folder / "runs" / run.id
    (folder.parent / "data" / run.settings.parts()[0].id).rmdir()
    with pytest.raises(UserError, match="is gone"):
        Repetition(study, run.id)
    (own / "run.yaml").write_text(dump_yaml({**run.training_view, "axes": {}}))
    with pytest.raises(UserError, match="the study was changed since"):
        Repetition(study, run.id)
    (own / "metrics.json").unlink()
    with pytest.raises(UserError, match="no result yet"):
        Repetition(study, run.id)
    with pytest.raises(UserError, match="study changed"):
        Repetition(study, "nobody")
