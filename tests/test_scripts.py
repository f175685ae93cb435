"""The scripts as programs: what they leave behind when things end otherwise than planned."""

import argparse
import gc
import json
from dataclasses import replace

import pytest
import torch
import train_run
from accelerate.state import AcceleratorState
from conftest import ROOT, STUDY
from safetensors.torch import save_file

from ablation import device
from ablation.errors import UserError
from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems.vggt.data.making import prepare_scene
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.system import System
from ablation.training.result import Result
from ablation.vram import oom
from ablation.vram.budget import CONTEXT_GIB
from ablation.yamlfile import dump_yaml, load_yaml


@pytest.fixture
def prepared(scene_root, tmp_path):
    how = {"size": (84, 112), "fit": "crop", "depth_range": (0.1, 100), "dense": False}
    for name in ("hall", "yard"):
        prepare_scene(scene_root, name, how, tmp_path / name)
    return [tmp_path / "hall", tmp_path / "yard"]


@pytest.fixture
def job(tmp_path, prepared):
    """A run of the demo's network on small scenes, and the arguments of its job."""
    data = {"source": "eth3d", "scenes": ["hall", "yard"], "split": {"test": ["yard"]}}
    study = load_study(STUDY, {"data": data, "training": {"steps": 2}, "sweep": {"strategy": "A", "rank": 4, "seed": 0}})
    torch.manual_seed(0)
    save_file(VGGT(study.model.architecture).state_dict(), tmp_path / "weights.safetensors")
    arguments = argparse.Namespace(
        folder=tmp_path / "run",
        data=prepared,
        weights=[("weights", tmp_path / "weights.safetensors")],
        threads=1,
        device="cpu",
        cards=ROOT / "config/hardware",
        prefixes=None,
        hashes=tmp_path / "hashes",
    )
    arguments.folder.mkdir()
    yield expand(study, "s")[0], arguments
    AcceleratorState._reset_state(True)


def held_to(job, gib):
    """The job with a card on which PyTorch's allocator may hold ``gib``."""
    run, arguments = job
    folder = arguments.folder.parent / f"cards-{gib}"
    folder.mkdir()
    card = load_yaml(ROOT / "config/hardware/rtx4090.yaml")
    (folder / "small.yaml").write_text(dump_yaml({**card, "usable_gib": gib + CONTEXT_GIB}))
    settings = run.settings.model_copy(update={"hardware": "small"})
    return replace(run, settings=settings), argparse.Namespace(**{**vars(arguments), "cards": folder})


def tensor_bytes():
    """Bytes of all tensors that Python knows of, without collecting garbage first."""
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]
    return sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}.values())


@pytest.fixture
def kept(monkeypatch):
    """What was still held, in bytes, each time that memory was released."""
    found, release = [], oom.release_memory

    def watched(device):
        release(device)
        torch.ones(1, requires_grad=True).sum().backward()  # empties the queue of PyTorch's backward pass on this thread
        found.append(tensor_bytes())

    monkeypatch.setattr(oom, "release_memory", watched)
    return found


def test_out_of_memory_is_a_result_whatever_the_phase(job, kept):
    """The budget lies between what one phase needs and the next: each time a real allocation in the real step fails."""
    peaks = {name: peak["allocated_gib"] for name, peak in train_run.train(*job)["memory"]["phases"].items()}
    assert peaks["optimizer"] < peaks["forward"] < peaks["backward"]
    budgets = {
        ("load", None): 0.001,
        ("forward", 2): (peaks["optimizer"] + peaks["forward"]) / 2,
        ("backward", 2): (peaks["forward"] + peaks["backward"]) / 2,
    }
    for (phase, step), budget in budgets.items():
        AcceleratorState._reset_state(True)
        gc.collect()
        others = tensor_bytes()  # of the tests that this process ran before
        record = train_run.train(*(its := held_to(job, budget)))
        folder = job[1].folder
        result = Result(folder, "mine")
        result.keep(record, record.pop("surroundings"))
        result.publish(its[0], {})
        assert record["outcome"] == "oom" and (record["oom"]["phase"], record["oom"]["step"]) == (phase, step)
        full, memory = record["oom"], record["memory"]
        assert full["budget_gib"] == memory["budget_gib"] == pytest.approx(budget)
        assert full["emulated"] and memory["emulated"] and memory["card"] == "small"
        assert full["allocated_gib"] <= budget < full["allocated_gib"] + full["requested_gib"] + 1e-6
        assert not (folder / "adapter").exists()
        done = (folder / "history.csv").read_text().splitlines()
        assert len(done) == (0 if step is None else step) and record.get("steps", 0) == max(0, len(done) - 1)
        # Nothing is left but the network, whose weights are less than what is there in the optimizer's phase.
        assert kept[-1] - others < (peaks["optimizer"] + 1e-6) * 2**30


def test_an_adapter_that_could_not_be_trained_again_is_not_left(job):
    run, arguments = job
    assert train_run.train(run, arguments)["saved"] == "adapter"
    AcceleratorState._reset_state(True)
    assert train_run.train(*held_to(job, 0.001))["outcome"] == "oom"
    assert not (arguments.folder / "adapter").exists()


def test_optimizer_state_above_the_budget_fails_in_the_step_that_makes_it(job):
    run, arguments = job
    network = VGGT(run.settings.model.architecture)
    weights = sum(value.nbytes for value in [*network.parameters(), *network.buffers()]) / 2**30
    trained = train_run.train(run, arguments)["parameters"]["trainable"] * 4 / 2**30
    AcceleratorState._reset_state(True)
    record = train_run.train(*held_to(job, weights + 2 * trained))  # weights, adapters and one of two moments
    assert record["outcome"] == "oom" and (record["oom"]["phase"], record["oom"]["step"]) == ("optimizer", 1)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: device-side assert triggered"), ValueError("no")])
def test_other_errors_fail_the_job(job, monkeypatch, error):
    def broken(self, model, batch, name):
        raise type(error)(*error.args)  # the one above lives on, and would all that its traceback holds

    monkeypatch.setattr(System, "objective", broken)
    with pytest.raises(type(error)):
        train_run.train(*job)


@pytest.mark.gpu
def test_out_of_memory_on_a_gpu_has_a_complete_record(job, gpu):
    run, arguments = held_to(job, 0.03)  # weights fit, the step does not
    arguments.device = gpu.type
    record = train_run.train(run, arguments)
    full = record["oom"]
    assert record["outcome"] == "oom" and full["phase"] in ("load", "forward", "backward", "optimizer") and full["emulated"]
    assert all(full[f"{name}_gib"] > 0 for name in ("requested", "allocated", "reserved"))
    assert full["reserved_gib"] <= full["budget_gib"] + 0.005 and record["memory"]["allocator_ooms"] >= 1
    json.dumps(record, allow_nan=False)


def test_full_scale_refuses_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--profile slurm"):
        device.choose_device("auto", "full")
    assert device.choose_device("auto", "demo").type == "cpu" and device.choose_device("cpu", "full").type == "cpu"
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
        device.choose_device("cuda", "demo")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_training_on_a_gpu(job, gpu, precision):
    run, arguments = job
    arguments.device = gpu.type
    run.axes["precision"] = precision
    record = train_run.train(run, arguments)
    memory = record["memory"]
    assert record["outcome"] == "completed" and memory["kind"] == "cuda"
    assert 0 < memory["peak_active_gib"] <= memory["peak_reserved_gib"] and memory["allocator_ooms"] == 0
