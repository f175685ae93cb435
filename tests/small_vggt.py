"""A tiny VGGT on two small scenes, trained by the program: what runs in several processes and what faults befall."""

import subprocess
from pathlib import Path

import launch
import torch
from safetensors.torch import load_file, save_file

from ablation.study import Study, study_model
from ablation.sweep import Run, expand
from ablation.systems.vggt.data.making import prepare_scene
from ablation.systems.vggt.model.vggt import VGGT


def prepare(scene_root: Path, vggt: VGGT, folder: Path) -> Path:
    """A folder with weights and two prepared scenes."""
    save_file(vggt.state_dict(), folder / "weights.safetensors")
    for name in ("hall", "yard"):
        how = {"size": (28, 42), "fit": "crop", "depth_range": (0.1, 100), "dense": False}
        prepare_scene(scene_root, name, how, folder / name)
    return folder


def run_of(root: Path, tiny, dropout: float = 0.0, how: dict | None = None, **axes) -> Run:
    """The first run of :func:`study_of`."""
    return expand(study_of(root, tiny, dropout, how, **axes), "tiny")[0]


def study_of(
    root: Path, tiny, dropout: float = 0.0, how: dict | None = None, steps: int = 4, compute: dict | None = None, **axes
) -> Study:
    """Four steps of LoRA on a tiny VGGT, with a loss that is a mean over samples. ``how``: what else its strategy says."""
    content = {
        "system": "vggt",
        "data": {"scenes": ["hall", "yard"], "resolution": [28, 42], "frames": 3, "target": "laser", "split": {"by": "scene"}},
        "model": {"weights": str(root / "weights.safetensors"), "architecture": tiny.model_dump(mode="json")},
        "training": {"steps": steps, "checkpoint_every": 2},
        "evaluation": {"pictures": 0},
        "lora": {"dropout": dropout},
        "loss": {"camera": 1.0, "conf": 0.0, "reg": 0.0, "grad": 0.0},
        "compute": {"threads": 1, "workers": 0, **(compute or {})},
        "strategies": {"A": {"train": {"lora": ["camera_head", "aggregator.global_blocks.2-3"]}, "lr": 1e-3, **(how or {})}},
        "sweep": {"strategy": "A", "rank": 4, "precision": "fp32", "seed": 0, **axes},
    }
    return study_model("vggt").model_validate(content)


def train(run: Run, root: Path, folder: str, **more) -> subprocess.CompletedProcess:
    """The run in its folder, on both scenes."""
    return launch.train(*job(run, root, folder), **more)


def job(run: Run, root: Path, folder: str) -> tuple:
    """What a launch takes."""
    return run, root / folder, {"weights": root / "weights.safetensors"}, [root / "hall", root / "yard"]


def result(root: Path, folder: str) -> tuple[dict, list[float], dict[str, torch.Tensor]]:
    """The record, the losses and the adapter of a run."""
    adapter = load_file(root / folder / "adapter/adapter_model.safetensors")
    return launch.record(root / folder), launch.history(root / folder, "loss"), adapter
