"""What decides the outputs of a frozen part to the last bit, but for its inputs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ablation.arithmetic import arithmetic
from ablation.manifest import hashes_of
from ablation.prefix.cache import INDEX, Cache
from ablation.provenance import code_hash, cpu_name, device_facts
from ablation.sweep import Run
from ablation.systems import load_system
from ablation.systems.base import System


def identity_of(run: Run, weights: Mapping[str, Path], known: Path, device: torch.device) -> dict[str, Any]:
    """Weights by their hashes (``known``: a folder that remembers them), network, precision, program, machine."""
    model = run.settings.model.model_dump(mode="json", exclude={"weights"})
    processor = [cpu_name(), torch.backends.cpu.get_cpu_capability(), arithmetic()] if device.type == "cpu" else []
    return {
        "weights": {name: hashes_of(path, known) for name, path in weights.items()},
        "network": [run.settings.system, model],
        "precision": run.axes["precision"],
        "program": code_hash(),
        "torch": torch.__version__,
        "device": [device_facts(str(device)), *processor],
    }


def system_for(
    run: Run, caches: Path | None, weights: Mapping[str, Path], known: Path, device: torch.device, trained: bool = True
) -> System:
    """The system of ``run`` with what ``caches``, a folder, has for it; not ``trained``: for its network before, all frozen."""
    system = load_system(run.settings)
    if caches is not None and run.prefix is not None and (caches / run.prefix / INDEX).is_file():
        cut = run.prefix_cut if trained else math.inf
        system.cache = Cache(caches / run.prefix, identity_of(run, weights, known, device), cut)
    return system
