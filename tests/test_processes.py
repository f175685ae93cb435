"""Several processes train one model as one would, and resume, fail and run out of memory together."""

import re
import time
from dataclasses import replace
from pathlib import Path

import launch
import psutil
import pytest
import torch
from conftest import ROOT, smallest
from faults import survived
from safetensors.torch import save_file
from small_vggt import job, prepare, result, run_of, train

from ablation.systems.vggt.model.vggt import VGGT
from ablation.vram.budget import CONTEXT_GIB
from ablation.yamlfile import dump_yaml, load_yaml

ZERO = {"distributed": "zero2", "offload": True}
ZERO3 = {**ZERO, "distributed": "zero3"}


@pytest.fixture
def root(scene_root, vggt, tmp_path) -> Path:
    return prepare(scene_root, vggt, tmp_path)


@pytest.fixture(scope="module")
def trained(scene_root, tmp_path_factory) -> Path:
    """The same folder, with what tests compare with: ``copies``, which accumulates alone, and ``both``, of two processes."""
    torch.manual_seed(0)
    root = prepare(scene_root, VGGT(smallest()), tmp_path_factory.mktemp("trained"))
    for folder, axes in {"copies": {"batch": 1, "accumulation": 4}, "both": {"gpus": 2}}.items():
        done = train(run_of(root, smallest(), **axes), root, folder, program=launch.SMALL_PARTS)
        assert done.returncode == 0, done.stderr
    return root


def test_two_processes_take_the_steps_of_one(root, tiny):
    """One batch of four, or two processes that accumulate two batches of one: equal up to the rounding of fp32 sums."""
    for folder, axes in {"alone": {"batch": 4}, "both": {"batch": 1, "accumulation": 2, "gpus": 2}}.items():
        done = train(run_of(root, tiny, **axes), root, folder, program=launch.SMALL_PARTS)
        assert done.returncode == 0, done.stderr
    (alone, losses, adapter), (both, their_losses, theirs) = result(root, "alone"), result(root, "both")
    assert alone["outcome"] == both["outcome"] == "completed" and both["steps"] == 4
    assert losses == pytest.approx(their_losses, rel=1e-5)
    for name, value in adapter.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-3)
    assert (root / "both/trainer.log").read_text().count("training A-") == 1
    memory = both["memory"]
    assert len(memory["ranks"]) == 2 and memory["peak_allocated_gib"] == memory["ranks"][memory["process"] - 1]
    assert memory["peak_allocated_gib"] == max(memory["ranks"]) and "ranks" not in alone["memory"]


HOWS = {
    "zero2": ({"distributed": "zero2"}, 2),
    "zero2 offloaded": (ZERO, 2),
    "zero2 alone": (ZERO, 1),
    "zero3": ({"distributed": "zero3"}, 2),
    "zero3 offloaded": (ZERO3, 2),
    "zero3 alone": ({"distributed": "zero3"}, 1),
}


@pytest.mark.parametrize("name", HOWS)
def test_zero_takes_the_steps_of_whole_copies(trained, tiny, name):
    """DeepSpeed keeps parts, and steps on them with the same optimizer: equal up to the rounding of fp32 sums."""
    how, gpus = HOWS[name]
    run = run_of(trained, tiny, how=how, gpus=gpus, batch=1, accumulation=4 // gpus)
    done = train(run, trained, name, program=launch.SMALL_PARTS)
    assert done.returncode == 0, done.stderr
    (_, losses, adapter), (record, their_losses, theirs) = result(trained, "copies"), result(trained, name)
    assert record["outcome"] == "completed" and record["steps"] == 4
    assert losses == pytest.approx(their_losses, rel=1e-5)
    for weight, value in adapter.items():
        torch.testing.assert_close(value, theirs[weight], atol=1e-5, rtol=1e-3)


# As many steps as it takes for the kill not to come too late; those of ZeRO-3 are slow.
@pytest.mark.parametrize(("how", "steps"), [({}, 16), (ZERO, 16), (ZERO3, 8)], ids=["copies", "parts", "parts of weights"])
def test_two_processes_resume_bit_for_bit(root, tiny, how, steps):
    """With dropout, which is random in each process. Killed when the state of step 2 is there: a second start takes it up.

    It also looks at the model as it trains, which must leave no trace.
    """
    run = run_of(root, tiny, dropout=0.2, how=how, gpus=2)
    training = run.settings.training.model_copy(update={"steps": steps})
    run = replace(run, settings=run.settings.model_copy(update={"training": training}))
    assert train(run, root, "whole", program=launch.SMALL_PARTS).returncode == 0
    _, losses, adapter = result(root, "whole")
    training = training.model_copy(update={"preview_every": steps // 2})
    run = replace(run, settings=run.settings.model_copy(update={"training": training}))
    launch.kill_after("checkpoint at step 2", *job(run, root, "cut"), program=launch.SMALL_PARTS)
    again = train(run, root, "cut", program=launch.SMALL_PARTS)
    assert len(list((root / "cut/previews").glob("step-*/*.png"))) == 2
    assert again.returncode == 0 and "resuming after step" in again.stderr
    _, their_losses, theirs = result(root, "cut")
    assert losses == their_losses and all(torch.equal(value, theirs[name]) for name, value in adapter.items())


@pytest.mark.fault
def test_out_of_memory_in_any_process_is_the_run_s_result(root, tiny):
    """An allocation of the real step fails, beyond the budget of the card: on a CPU, PyTorch's own error of a full GPU."""
    run = run_of(root, tiny, gpus=2)
    assert train(run, root, "run", program=launch.SMALL_PARTS).returncode == 0
    phases = {name: peak["allocated_gib"] for name, peak in result(root, "run")[0]["memory"]["phases"].items()}
    (root / "cards").mkdir()
    card = load_yaml(ROOT / "config/hardware/rtx4090.yaml")
    budget = (phases["optimizer"] + phases["backward"]) / 2
    (root / "cards/small.yaml").write_text(dump_yaml({**card, "usable_gib": budget + CONTEXT_GIB}))
    run = replace(run, settings=run.settings.model_copy(update={"hardware": "small"}))
    done = train(run, root, "run", cards=root / "cards", program=launch.SMALL_PARTS)
    assert done.returncode == 0, done.stderr
    record = launch.record(root / "run")
    assert record["outcome"] == "oom" and record["oom"]["phase"] in ("forward", "backward")
    assert record["oom"]["process"] in (1, 2) and f"out of memory in process {record['oom']['process']} of 2" in done.stderr
    assert not (root / "run/adapter").exists()
    seen = f"outcome oom, in log, table and report: “{re.search('out of memory in process.*', done.stderr)[0]}”"
    survived(
        "CUDA OOM of a process of two (budget of a small card)", "local", seen=seen, seconds=0, repeated=0, same="a result"
    )


def test_a_process_that_fails_fails_the_run(root, tiny):
    save_file({"nothing": torch.zeros(1)}, root / "weights.safetensors")
    done = train(run_of(root, tiny, gpus=2), root, "run", program=launch.SMALL_PARTS)
    told = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(told) == 1 and not (root / "run/training.json").exists()
    assert re.match(r"error: process [12] of 2: .*weights.safetensors: does not fit", told[0])
    assert "nothing" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.fault
def test_a_killed_process_ends_the_run_and_the_next_attempt_goes_on(trained, tiny):
    """Told by name at the end, within seconds, with nothing of what the other one met; and the end is the same, bit for bit."""
    run = run_of(trained, tiny, gpus=2)
    started = launch.start(*job(run, trained, "run"))
    said = next(line for line in started.stderr if "checkpoint at step 2" in line)
    one = next(child for child in psutil.Process(started.pid).children() if child.environ().get("RANK") == "1")
    one.kill()
    since = time.monotonic()
    _, told = started.communicate(timeout=300)  # less than the patience of the other one
    seconds = time.monotonic() - since
    assert said and started.returncode == 2
    assert told.splitlines()[-1] == "error: process 2 of 2: killed by SIGKILL; out of host memory?" and "gloo" not in told
    again = train(run, trained, "run", program=launch.SMALL_PARTS)
    assert again.returncode == 0 and "resuming after step 2" in again.stderr
    (_, losses, adapter), (record, their_losses, theirs) = result(trained, "both"), result(trained, "run")
    assert losses == their_losses and all(torch.equal(value, theirs[name]) for name, value in adapter.items())
    repeated = record["attempts"]["repeated_steps"]
    seen = told.splitlines()[-1]
    survived("kill -9 of a rank", "local", seen=f"“{seen}”", seconds=seconds, repeated=repeated, same="bit for bit")
