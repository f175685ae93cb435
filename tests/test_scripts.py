"""The scripts as programs: what they leave behind when things end otherwise than planned."""

import argparse
import json

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
from ablation.systems.vggt.data.scene import prepare_scene
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.system import System


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
        folder=tmp_path / "run", data=prepared, weights=[("weights", tmp_path / "weights.safetensors")], threads=1, device="cpu"
    )
    arguments.folder.mkdir()
    yield expand(study, "s")[0], arguments
    AcceleratorState._reset_state(True)


def test_out_of_memory_is_a_result(job, monkeypatch):
    """The error a CUDA allocator raises, in the middle of a step: a typed record, no exception, no adapter."""
    run, arguments = job

    def hungry(self, model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        yield

    monkeypatch.setattr(System, "objectives", hungry)
    record = train_run.train(run, arguments)
    assert record["outcome"] == "oom" and record["oom"] == "CUDA out of memory. Tried to allocate 20.00 GiB."
    assert (arguments.folder / "history.csv").exists() and not (arguments.folder / "adapter").exists()
    json.dumps(record, allow_nan=False)


def test_manifest_says_what_ran_where_and_nothing_of_the_user(job):
    run, arguments = job
    assert train_run.train(run, arguments)["outcome"] == "completed"
    text = (arguments.folder / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["packages"]["torch"].startswith("2.13") and manifest["device"] == {"type": "cpu", "threads": 1}
    assert str(ROOT) not in text and str(arguments.folder) not in text


def test_full_scale_refuses_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--profile slurm"):
        device.choose_device("auto", "full")
    assert device.choose_device("auto", "demo").type == "cpu" and device.choose_device("cpu", "full").type == "cpu"
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
        device.choose_device("cuda", "demo")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_training_on_a_gpu(job, precision):
    run, arguments = job
    arguments.device = "cuda"
    run.axes["precision"] = precision
    record = train_run.train(run, arguments)
    memory = record["memory"]
    assert record["outcome"] == "completed" and memory["kind"] == "cuda"
    assert 0 < memory["peak_active_gib"] <= memory["peak_reserved_gib"] and memory["allocator_ooms"] == 0
