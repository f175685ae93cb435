"""The live view of a run that is trained by the program itself: killed, held up, waited for, asked to leave."""

import signal
import socket
import time

import launch
import pytest
from runfolders import Results
from safetensors.torch import save_file

from ablation import lease, leave
from ablation.attempts import Journal
from ablation.live import attempt
from ablation.live.reading import Files
from ablation.live.study import Study
from ablation.progress import Progress
from ablation.study import study_model
from ablation.sweep import expand
from ablation.systems.vggt.data.making import prepare_scene

PATIENCE = 120.0  # seconds


@pytest.fixture
def job(scene_root, tmp_path, tiny, vggt):
    """A run without end, and how the program is called to train it; the results' folder for the view."""
    how = {"size": (28, 42), "fit": "crop", "depth_range": (0.1, 100), "dense": False}
    for name in ("hall", "yard"):
        prepare_scene(scene_root, name, how, tmp_path / name)
    save_file(vggt.state_dict(), tmp_path / "weights.safetensors")
    data = {"scenes": ["hall", "yard"], "resolution": [28, 42], "frames": 3, "target": "laser", "split": {"by": "scene"}}
    content = {
        "system": "vggt",
        "data": data,
        "model": {"weights": "weights.safetensors", "architecture": tiny.model_dump(mode="json")},
        "training": {"steps": 1_000_000, "checkpoint_every": 1_000_000},
        "compute": {"threads": 1, "workers": 0},
        "strategies": {"A": {"train": {"lora": ["depth_head"]}, "lr": 1e-3}},
        "sweep": {"rank": 4, "precision": "fp32"},
    }
    run = expand(study_model("vggt").model_validate(content), "s")[0]
    results = Results(tmp_path, {run.id: {}}, steps=1_000_000)
    folder = results.folder / "runs" / run.id
    folder.parent.mkdir()
    return results, (run, folder, {"weights": tmp_path / "weights.safetensors"}, [tmp_path / "hall", tmp_path / "yard"])


def seen(results, state, met=lambda run: True):
    """The run as soon as it is in ``state`` and what is asked for is ``met``."""
    files, end = Files(), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        run = Study(results.folder, files).runs[0]
        if run.state == state and met(run):
            return run
        time.sleep(0.1)
    raise AssertionError(f"never {state}; it is {run.state} {run.why}")


def test_a_run_is_watched_while_it_trains(job, monkeypatch):
    results, started = job
    first = launch.start(*started)
    second = None
    try:
        run = seen(results, "training", lambda run: (run.step or 0) >= 3)
        assert run.total_steps == 1_000_000
        assert run.loss > 0 and run.memory_gib > 0 and run.step_s > 0 and run.samples_per_s > 0
        assert (run.node, run.tries) == (socket.gethostname(), 1)
        assert seen(results, "training", lambda now: now.step > run.step)

        second = launch.start(*started)  # as another Snakemake would send it
        results.text(f"logs/train/{run.id}.log", next(line for line in second.stderr if "waiting" in line))
        first.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(attempt, "STALLED", 0.5)
        monkeypatch.setattr(attempt, "SLOW", 2)
        run = seen(results, "stalled")
        assert run.why.startswith(f"at step {run.step:.0f} for ")
        assert run.why.endswith("; another job waits for it")

        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=PATIENCE)
        assert second.returncode == leave.STATUS
        first.kill()
        first.communicate()
        monkeypatch.setattr(attempt, "GONE", 0.0)
        run = seen(results, "stopped")
        assert run.why.startswith(f"killed without a word: its process {first.pid} is gone")
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.communicate()


@pytest.mark.parametrize("how", ["preempted", "failed", "completed"])
def test_the_view_reads_what_the_program_writes(tmp_path, how, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    results = Results(tmp_path, {"r": {}})
    folder = results.folder / "runs/r"
    with lease.hold(folder):
        assert seen(results, "starting", lambda run: run.node).node == socket.gethostname()
        journal = Journal(folder)
        journal.start("settings", ["0"])
        assert seen(results, "training").doing == "loading"
        journal.train(20, 80, repeats=0)
        assert seen(results, "training").step == 20
        progress = Progress(folder, total_steps=80, samples_per_step=8)
        progress.tell("train", 20, None, [], None)
        assert seen(results, "training").doing == "training"
        progress.tell("save", 40, 0.5, [0.25, 0.5, 0.5], 1.5)
        run = seen(results, "training", lambda run: run.doing == "saving")
        assert (run.step, run.total_steps, run.loss, run.step_s, run.samples_per_s, run.memory_gib) == (
            40,
            80,
            0.5,
            0.5,
            16,
            1.5,
        )
        journal.end(how, "why")
    run = seen(results, "trained" if how == "completed" else how)
    assert run.why == ("" if how == "completed" else "why")
    journal.start("settings", ["0"])
    assert Study(results.folder, Files()).runs[0].tries == 2
