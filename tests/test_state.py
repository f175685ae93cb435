"""What a run has left is known by content: nothing else decides what is taken up, and nothing is lost without a word."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import launch
import pytest
import torch
from faults import survived
from safetensors.torch import load_file, save_file
from small_vggt import job, prepare, run_of
from test_faults import outcome, started_at

from ablation.state import ASIDE, State
from ablation.sweep import Run

LONG_AGO = 946_684_800  # Unix seconds


@pytest.fixture
def root(scene_root, vggt, tmp_path) -> Path:
    return prepare(scene_root, vggt, tmp_path)


def with_rate(run: Run, rate: float) -> Run:
    return replace(run, strategy=run.strategy.model_copy(update={"lr": rate}))


def touch_all(root: Path) -> None:
    """Other times on weights and data, and other inodes: as after a download or a copy."""
    for path in [root / "weights.safetensors", *(root / "hall").rglob("*"), *(root / "yard").rglob("*")]:
        if path.is_file():
            shutil.copy(path, path.with_suffix(".copy"))
            path.with_suffix(".copy").replace(path)
            os.utime(path, (LONG_AGO, LONG_AGO))


def change_weights(root: Path) -> None:
    path = root / "weights.safetensors"
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.float32)
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, path)


@pytest.mark.fault
def test_times_of_weights_and_data_retrain_nothing(root, tiny):
    """Neither from a checkpoint nor where all is trained."""
    run, folder = run_of(root, tiny), root / "run"
    assert launch.train(*job(run, root, "undisturbed")).returncode == 0
    launch.kill_after("checkpoint at step 2", *job(run, root, "run"))
    touch_all(root)
    begun = time.monotonic()
    done = launch.train(*job(run, root, "run"))
    assert done.returncode == 0 and "resuming after step 2" in done.stderr, done.stderr
    assert outcome(folder) == outcome(root / "undisturbed")
    seconds, repeated = time.monotonic() - begun, started_at(folder)[1]
    touch_all(root)
    assert "trained already" in launch.train(*job(run, root, "run")).stderr
    seen = "nothing: “resuming after step N”, and what is trained stays so"
    survived("touched or copied weights and data", "local", seen=seen, seconds=seconds, repeated=repeated, same="bit for bit")


def test_other_weights_are_trained_on_from_the_start_and_the_checkpoint_is_named(root, tiny):
    run, folder = run_of(root, tiny), root / "run"
    launch.kill_after("checkpoint at step 2", *job(run, root, "run"))
    change_weights(root)
    launch.kill_after("checkpoint at step 2", *job(run, root, "run"))
    (aside,) = (folder / "state").glob(f"{ASIDE}*")
    assert sorted(path.name for path in aside.iterdir()) == ["history.csv", "step-00000002"]
    done = launch.train(*job(run, root, "run"))
    assert done.returncode == 0 and f"{aside}: removed, since the run has ended" in done.stderr and not aside.exists()
    said = (folder / "trainer.log").read_text()
    change_weights(root)
    again = launch.train(*job(run, root, "run"))
    assert again.returncode == 0 and "trained already" not in again.stderr and "resuming" not in again.stderr
    assert "(checkpoints after steps: none) is not used, since weights (weights)" in again.stderr
    assert "resuming after step 2" in said and "steps 0 to 4" in (folder / "trainer.log").read_text()


@pytest.mark.fault
def test_an_edit_that_is_taken_back_goes_on_where_it_was(root, tiny):
    """The checkpoints of either rate stay, named; so does a result that is not published yet."""
    run, other, folder = run_of(root, tiny), with_rate(run_of(root, tiny), 5e-4), root / "run"
    assert launch.train(*job(run, root, "undisturbed")).returncode == 0
    launch.kill_after("checkpoint at step 2", *job(run, root, "run"))
    begun = time.monotonic()
    left = launch.signal_after("checkpoint at step 2", 15, *job(other, root, "run"))
    assert "checkpoints after steps: 2) is not used, since strategies.A.lr 0.001 -> 0.0005; it is kept in" in left.stderr
    back = launch.train(*job(run, root, "run"))
    assert back.returncode == 0 and "goes on with what was set aside" in back.stderr, back.stderr
    assert "strategies.A.lr 0.0005 -> 0.001" in back.stderr and "resuming after step 2" in back.stderr
    assert outcome(folder) == outcome(root / "undisturbed")
    seen = "“… is not used, since strategies.A.lr 0.001 -> 0.0005; it is kept in state/unused-…”, later that it goes on with it"
    seconds = time.monotonic() - begun
    survived("a setting changed and changed back", "local", seen=seen, seconds=seconds, repeated=0, same="bit for bit")


def test_a_result_that_is_set_aside_comes_back_with_what_it_saved(tmp_path):
    state = State(tmp_path)
    first, second = ({"axes": {"strategy": "A"}, "strategy": {"lr": rate}, "settings": {}} for rate in (1.0, 2.0))
    inputs = {"weights": {}, "data": {}}
    state.take("a" * 64, first, inputs)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/weights").write_text("of a")
    (tmp_path / "state/result.json").write_text('{"training": {"saved": "adapter"}}')
    state.take("b" * 64, second, inputs)
    assert not (tmp_path / "adapter").exists() and not state.has_result()
    state.take("a" * 64, first, inputs)
    assert (tmp_path / "adapter/weights").read_text() == "of a" and state.has_result()
    assert not list((tmp_path / "state").glob(f"{ASIDE}*"))


def test_what_does_not_say_whose_it_is_is_set_aside_too(tmp_path, caplog):
    """As an earlier version has left it."""
    (tmp_path / "state/step-00000006").mkdir(parents=True)
    State(tmp_path).take("a" * 64, {"axes": {}, "strategy": {}, "settings": {}}, {})
    assert (tmp_path / "state/unused-unknown/step-00000006").is_dir()
    assert "checkpoints after steps: 6) is not used, since it does not say which settings it belongs to" in caplog.text
