"""What decides the outputs of a frozen part to the last bit, but for its inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ablation.manifest import hashes_of
from ablation.provenance import code_hash, cpu_name, device_facts
from ablation.sweep import Run


def identity_of(run: Run, weights: Mapping[str, Path], known: Path, device: torch.device) -> dict[str, Any]:
    """Weights by their hashes (``known``: a folder that remembers them), network, precision, program, machine."""
    model = run.settings.model.model_dump(mode="json", exclude={"weights"})
    processor = [cpu_name(), torch.backends.cpu.get_cpu_capability()] if device.type == "cpu" else []
    return {
        "weights": {name: hashes_of(path, known) for name, path in weights.items()},
        "network": [run.settings.system, model],
        "precision": run.axes["precision"],
        "program": code_hash(),
        "torch": torch.__version__,
        "device": [device_facts(str(device)), *processor],
    }
