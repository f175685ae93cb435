"""A small Hunyuan3D for the tests: two real shapes in the released layout, networks of random weights, runs."""

from pathlib import Path
from typing import Any

import torch
import trimesh
from safetensors.torch import save_file
from torch import nn

from ablation.parts import Part
from ablation.study import study_model
from ablation.sweep import Run, expand
from ablation.systems.hunyuan3d import preparation
from ablation.systems.hunyuan3d.network import ShapeGenerator
from ablation.systems.hunyuan3d.settings import Model
from ablation.systems.hunyuan3d.system import System
from ablation.training.trainer import Trainer
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter

CPU = torch.device("cpu")
PLENTY = Budget("any", 1.0, emulated=True)  # a GiB; the tiny networks take a few MiB
ATTENTION = [f"model.blocks.*.attn*.{name}" for name in ("to_q", "to_k", "to_v", "out_proj")]
NETWORKS = {
    "architecture": {
        "latents": 16, "channels": 4, "condition_tokens": 10, "condition_dim": 16, "dim": 32, "depth": 3, "heads": 2,
        "moe_layers": 1, "experts": 3,
    },
    "autoencoder": {"latents": 16, "channels": 4, "dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
    "conditioner": {"image_size": 42, "trained_size": 42, "dim": 16, "depth": 1, "heads": 2},
}  # fmt: skip
MADE = {"points": 256, "distances": 1024, "views": 6, "size": 48}
SHAPES = ("ball", "brick")


def write_meshes(root: Path) -> Path:
    """A ball and a brick as .ply files in ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    trimesh.creation.icosphere(subdivisions=3).export(root / "ball.ply")
    trimesh.creation.box(extents=(2, 1.2, 0.8)).export(root / "brick.ply")
    return root


def prepare_shapes(root: Path, out: Path) -> list[Path]:
    """The prepared data of both shapes, as the workflow makes it."""
    folders = []
    for name in SHAPES:
        (out / name).mkdir(parents=True)
        preparation.prepare(Part("shape", name, {"source": "meshes", "root": str(root), **MADE}), [], out / name)
        folders.append(out / name)
    return folders


def networks(seed: int = 0, std: float = 0.1) -> ShapeGenerator:
    """The three networks with random weights."""
    torch.manual_seed(seed)
    network = ShapeGenerator(Model.model_validate(NETWORKS))
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
    return network


def save_networks(path: Path, network: nn.Module) -> Path:
    """A weights file of the released names."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def run_of(weights: Path | str, root: Path | str = "meshes", **changes: Any) -> Run:
    """The run of a small study; ``changes`` are axes, or sections of the study to lay over it."""
    content = {
        "system": "hunyuan3d",
        "data": {"source": "meshes", "root": str(root), "shapes": list(SHAPES), "points": 64, "from_meshes": MADE,
                 "split": {"by": "view", "train": 0.6}},
        "model": {"weights": str(weights), **NETWORKS},
        "evaluation": {"steps": 4, "resolution": 12, "guidance": 1, "tau": 0.05, "pictures": 1},
        "training": {"steps": 6, "checkpoint_every": 100},
        "lora": {"alpha_per_rank": 1, "dropout": 0},
        "compute": {"threads": 1, "workers": 0},
        "strategies": {
            "A": {"train": {"full": ["model"]}, "lr": 1e-3},
            "B": {"train": {"lora": ATTENTION}, "lr": 1e-3},
            "C": {"train": {"lora": ATTENTION}, "lr": 1e-3, "gradient_checkpointing": True},
        },
        "sweep": {"strategy": "A", "rank": 4, "batch": 2, "precision": "fp32"},
    }  # fmt: skip
    for key, value in changes.items():
        section = content["sweep"] if key not in content else content
        section[key] = {**content[key], **value} if key in content else value
    return expand(study_model("hunyuan3d").model_validate(content), "small")[0]


def trainer(run: Run, folders: list[Path], out: Path, budget: Budget = PLENTY) -> Trainer:
    """The trainer of ``run``."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {"weights": Path(run.settings.model.weights)}
    return Trainer(run, System(run.settings), weights, folders, out, CPU, CpuMeter(budget))
