"""The steps of a stored case, taken by our trainer: its optimizer, schedule, accumulation, clipping and average."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems.base import Draw, System
from ablation.training.order import steps_of_epoch
from ablation.training.trainer import Trainer
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter
from parity_cases import Tensors

STUDIES = Path(__file__).parent.parent.parent / "config/studies"
PLENTY = Budget("any", 1.0, emulated=True)  # a GiB; the networks take a few MiB
LORA = "lora."  # before the names of adapters' weights in a case


class StoredBatches:
    """Batches [steps, accumulation, B, ...] as a data set that a trainer takes in this order, whatever its seed."""

    def __init__(self, batches: Tensors, run: Run):
        self.samples = {name: value.flatten(0, 2) for name, value in batches.items()}
        indices = chain(*steps_of_epoch(self.groups(), run.effective_batch, run.axes["seed"], 0))
        self.places = {index: place for place, index in enumerate(indices)}

    def __len__(self) -> int:
        return len(next(iter(self.samples.values())))

    def __getitem__(self, draw: Draw) -> Tensors:
        """The sample whose turn it is."""
        return {name: value[self.places[draw.index]] for name, value in self.samples.items()}

    def groups(self) -> list[int]:
        """All may share a batch."""
        return [0] * len(self)


class Stored:
    """A system with the weights and batches of a case in place of files."""

    def __init__(self, system: System, weights: Tensors, samples: StoredBatches):
        self.system, self.weights, self.stored = system, weights, samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self.system, name)

    def load_weights(self, model: nn.Module, _files: dict[str, Path]) -> None:
        """The case's."""
        model.load_state_dict({name: value.clone() for name, value in self.weights.items()}, assign=True)

    def samples(self, _folders: Sequence[Path], train: bool) -> StoredBatches:
        """The case's."""
        return self.stored


def runs(study: str, config: dict[str, Any], **content: Any) -> list[Run]:
    """A run of each strategy of a case: of the ``study`` that is shipped, with the settings of the case and ``content``."""
    changes = {
        "scale": "demo",
        "training": {**config["training"], "checkpoint_every": None, "preview_every": None},
        "lora": config["lora"],
        "strategies": {name: {"lr": lr} for name, lr in config["lr"].items()},
        "sweep": {
            "strategy": list(config["lr"]),
            "rank": config["rank"],
            "batch": config["batch"],
            "accumulation": config["accumulation"],
            "gpus": 1,
            "precision": "fp32",
            "seed": 0,
        },
        "keep": [],
        "baseline": {"strategy": next(iter(config["lr"])), "batch": config["batch"]},
    }
    return expand(load_study(STUDIES / f"{study}.yaml", changes | content), study)


def steps(run: Run, system: System, weights: Tensors, batches: Tensors) -> Tensors:
    """``loss``, ``grad_norm`` and ``lr`` [steps] under the strategy's name; ``trained``, and ``average`` where there is one.

    The latter are the means of the trained tensors after the last step, in the order of their names.
    """
    base = {name: value for name, value in weights.items() if not name.startswith(LORA)}
    with TemporaryDirectory() as folder, torch.enable_grad():
        stored = Stored(system, base, StoredBatches(batches, run))
        trainer = Trainer(run, stored, {}, [], Path(folder), torch.device("cpu"), CpuMeter(PLENTY), fingerprint="a case")
        _put_adapters(trainer, weights)
        try:
            trainer.train()
        finally:
            trainer.meter.report()
            AcceleratorState._reset_state(True)
    out = {name: torch.tensor(trainer.history.column(name)) for name in ("loss", "grad_norm", "lr")}
    out["trained"] = _means(trainer.training_step.sharing.trained())
    if trainer.training_step.average is not None:
        out["average"] = _means(trainer.training_step.average.state()["weights"])
    return {f"{run.axes['strategy']}.{name}": value for name, value in out.items()}


def _put_adapters(trainer: Trainer, weights: Tensors) -> None:
    """Give the adapters, which start at random, what the case has for them; the average starts from there, too."""
    trained = trainer.training_step.sharing.trained()
    for name, value in trained.items():
        if ".lora_" in name:
            value.copy_(weights[LORA + name.removeprefix("base_model.model.").replace(".default.weight", "")])
    if trainer.training_step.average is not None:
        trainer.training_step.average.restore({"updates": 0, "weights": trained})


def _means(tensors: Tensors) -> Tensor:
    return torch.stack([tensors[name].mean() for name in sorted(tensors)])
