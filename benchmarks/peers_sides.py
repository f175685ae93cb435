"""The two sides of benchmarks/peers.py: each builds its network from the same files and steps it."""

import gc
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from authors import Authors, opened
from recording import ROOT  # which finds the library
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ablation.heap import keep_heap
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.training.accelerator import make_accelerator
from ablation.training.model import for_training
from ablation.training.randomness import make_deterministic, seed_everything
from ablation.training.recompute import recompute
from ablation.training.step import TrainingStep
from ablation.training.strategy import apply_strategy, trained_of

CPU = torch.device("cpu")
STUDIES = {"vggt": "vggt-eth3d", "rdt": "rdt-batch", "hunyuan3d": "hunyuan3d-4090"}
SPREAD = 0.02  # of what is added to fresh weights and adapters, of which some are zero
MIB = 2**20

SIZES: dict[str, dict[str, Any]] = {
    "vggt": {
        "data": {"resolution": [168, 168], "frames": 4},
        "model": {
            "architecture": {
                "image_size": 168,
                "embed_dim": 256,
                "depth": 8,
                "heads": 4,
                "vit": {"depth": 8, "heads": 4},
                "camera": {"depth": 4, "heads": 4, "mlp_ratio": 4},
                "dpt": {"features": 64, "channels": [64, 128, 256, 256], "layers": [1, 3, 5, 7]},
            }
        },
        "strategies": {"B": {"train": {"lora": ["aggregator.frame_blocks.4-7", "aggregator.global_blocks.4-7", "depth_head"]}}},
        "lora": {"dropout": 0},
        "sweep": {"batch": 1},
    },
    "rdt": {
        "model": {"architecture": {"hidden_size": 256, "depth": 8, "heads": 8, "images": {"patches": 64}}},
        "sweep": {"gpus": 1, "batch": 8, "accumulation": 1},
        "keep": [],
        "baseline": None,
    },
    "hunyuan3d": {
        "model": {
            "architecture": {"latents": 512, "dim": 256, "depth": 8, "heads": 4, "moe_layers": 3, "experts": 8},
            "autoencoder": {"latents": 512},
        },
        "data": {"points": 2048},
        "sweep": {"batch": 2},
        "baseline": None,
    },
}
"""What is laid over the demo of a system's study, so that a step takes a second or two and most of it computes."""


@dataclass(frozen=True)
class Case:
    """A strategy of a system's study, with other ways to save memory in it."""

    system: str
    strategy: str
    name: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """Of a row."""
        return f"{self.system} {self.name} beside the authors' code"

    @property
    def recomputes(self) -> bool:
        """Whether blocks are to be recomputed."""
        return bool(self.changes.get("gradient_checkpointing"))

    @property
    def run(self) -> Run:
        """At the size that is measured here."""
        return self._run({"scale": "demo", **SIZES[self.system]}, {"precision": "fp32"})

    @property
    def released(self) -> Run:
        """At the released size, a batch of one on one GPU in fp32."""
        axes = {"batch": 1, "accumulation": 1, "gpus": 1, "precision": "fp32", "rank": 16, "seed": 0}
        return self._run({"scale": "full", "sweep": axes, "keep": [], "exclude": [], "baseline": None, "claims": None}, axes)

    def _run(self, content: dict[str, Any], axes: dict[str, Any]) -> Run:
        study = STUDIES[self.system]
        runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", content), study)
        run = next(run for run in runs if run.axes["strategy"] == self.strategy).with_axes(**axes)
        plain = {"gradient_checkpointing": False, "host": None, "distributed": "ddp"}
        return replace(run, strategy=run.strategy.model_copy(update={**plain, **self.changes}))


ALL = {"gradient_checkpointing": True}
CASES = {
    "vggt": [Case("vggt", "A", "A"), Case("vggt", "B", "B", ALL), Case("vggt", "C", "C", ALL)],
    "rdt": [Case("rdt", "full", "full"), Case("rdt", "lora", "LoRA")],
    "hunyuan3d": [
        Case("hunyuan3d", "B", "LoRA"),
        Case("hunyuan3d", "B", "LoRA, recomputed", ALL),
        Case("hunyuan3d", "A", "full"),
    ],
}


def prepare(case: Case, folder: Path) -> None:
    """Write what both sides start from: weights, what is trained of them or beside them, and a batch."""
    seed_everything(0)
    run = case.run
    system = load_system(run.settings)
    model = _shaken(system.build())
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "weights.safetensors")
    model = _shaken(apply_strategy(model, run.strategy, run.rank, run.settings.lora))
    save_file({name: value.contiguous() for name, value in trained_of(model).items()}, folder / "trained.safetensors")
    save_file(system.fake_batch(run.axes["batch"]), folder / "batch.safetensors")


def _shaken(model: nn.Module) -> nn.Module:
    """``model`` with noise on what it trains."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter), alpha=SPREAD)
    return model


class Side:
    """A network that is ready, and its step."""

    def __init__(self, step: Callable[[dict[str, Tensor]], dict[str, float]], folder: Path):
        keep_heap()
        self.step, self.batch = step, load_file(folder / "batch.safetensors")
        gc.collect()

    def first(self) -> dict[str, float]:
        """Loss and gradient norm of a step."""
        return self.step(dict(self.batch))

    def seconds(self) -> float:
        """CPU seconds of a step."""
        start = time.process_time()
        self.step(dict(self.batch))
        return time.process_time() - start

    def activations(self) -> float:
        """MiB that a step allocates beyond what is there when it begins, at its peak."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self.step(dict(self.batch))
        return peak(profiler) / MIB


def peak(profiler: profile) -> int:
    """Bytes at the largest moment above the beginning."""
    now = most = 0
    for event in sorted(_allocations(profiler), key=lambda event: event.start_time_ns):
        now += event.extra_fields.alloc_size
        most = max(most, now)
    return most


def _allocations(profiler: profile) -> list:
    """The events of memory, which lie in the tree of the others."""
    found, left = [], list(profiler.profiler.kineto_results.experimental_event_tree())
    while left:
        event = left.pop()
        left += event.children
        if event.name == "[memory]":
            found.append(event)
    return found


def side_of(name: str, case: Case, upstream: Path, folder: Path) -> Side:
    """``ours`` or ``authors``."""
    if name == "ours":
        return Side(ours(case, folder), folder)
    return Side(theirs(case, opened(case.system, upstream), folder), folder)


def ours(case: Case, folder: Path) -> Callable[[dict[str, Tensor]], dict[str, float]]:
    """The trainer's step."""
    make_deterministic()
    run = case.run
    system = load_system(run.settings)
    model = for_training(system, run, {"weights": folder / "weights.safetensors"}, CPU)
    _fill(model, folder)
    step = TrainingStep(run, system, model, make_accelerator("fp32", CPU))

    def take(batch: dict[str, Tensor]) -> dict[str, float]:
        values = step([batch], 1, lambda phase: None)
        return {"loss": float(values["loss"]), "gradient norm": float(values["grad_norm"])}

    return take


def theirs(case: Case, authors: Authors, folder: Path) -> Callable[[dict[str, Tensor]], dict[str, float]]:
    """The plainest loop over their network and loss."""
    run = case.run
    model = authors.build(run.settings)
    weights = load_file(folder / "weights.safetensors")
    if absent := model.load_state_dict(weights, strict=False).missing_keys:
        raise ValueError(f"our weights lack {absent[:3]} of theirs")
    model = adapted(model, case, authors, run)
    _fill(model, folder)
    how = run.settings.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, run.strategy.lr, how.betas, how.eps, how.weight_decay)
    return partial(plain_step, model, authors, run, optimizer, lambda phase: None)


def adapted(model: nn.Module, case: Case, authors: Authors, run: Run) -> nn.Module:
    """Their network with what the strategy trains, in training mode; recomputed where ours is."""
    units = authors.blocks(model)
    model = apply_strategy(model, run.strategy, run.rank, run.settings.lora)
    if case.recomputes:
        recompute(units)
    return model.train()


def plain_step(
    model: nn.Module,
    authors: Authors,
    run: Run,
    optimizer: torch.optim.Optimizer,
    mark: Callable[[str], None],
    batch: dict[str, Tensor],
) -> dict[str, Any]:
    """Forward, backward, clip, update."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    mark("forward")
    loss = authors.loss(inner, run.settings, batch)
    mark("backward")
    loss.backward()
    mark("optimizer")
    norm = nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], run.settings.training.clip)
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": loss.detach(), "gradient norm": norm.detach()}


def _fill(model: nn.Module, folder: Path) -> None:
    """The values of what is trained, by the names that both sides share."""
    values = load_file(folder / "trained.safetensors")
    with torch.no_grad():
        for name, parameter in trained_of(model).items():
            parameter.copy_(values[name])


def cpu_seconds() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
