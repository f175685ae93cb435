"""Compare our networks with stored outputs of the reference implementations.

    python tests/parity.py SYSTEM CASE [--tolerance 1e-4]

CASE is the path of a case without its extension: ``CASE.config.json`` says how to build the model, ``CASE.safetensors``
holds ``weights/``, ``inputs/`` and ``outputs/``. Prints the largest absolute difference of every output; the exit status is
not zero when one exceeds the tolerance or is missing.
"""

import argparse
import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import torch
from parity_cases import Tensors
from safetensors.torch import load_file
from torch import Tensor

# Each a function of this name in parity_cases, from (config, weights, inputs) to outputs; imported when it is asked for.
# It is called without gradients; one whose case stores some switches them on for itself.
SYSTEMS = {"vggt": "vggt.vggt", "vggt-loss": "vggt.vggt_loss", "rdt": "rdt.rdt", "hunyuan3d_dit": "hunyuan3d.hunyuan3d_dit"}


def outputs(system: str, config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """What our implementation gives."""
    module, function = SYSTEMS[system].split(".")
    with torch.no_grad():
        return getattr(import_module(f"parity_cases.{module}"), function)(config, weights, inputs)


def differences(system: str, case: Path) -> dict[str, float]:
    """Largest absolute difference of every stored output; infinite for one that we do not give or that has another shape."""
    config = json.loads(Path(f"{case}.config.json").read_text())
    stored: dict[str, Tensors] = {"weights": {}, "inputs": {}, "outputs": {}}
    for name, value in load_file(f"{case}.safetensors").items():
        kind, rest = re.fullmatch(r"(weights|inputs|outputs)/(.+)", name).groups()
        stored[kind][rest] = value
    ours = outputs(system, config, stored["weights"], stored["inputs"])
    return {name: _difference(ours.get(name), value) for name, value in stored["outputs"].items()}


def _difference(ours: Tensor | None, reference: Tensor) -> float:
    if ours is None or ours.shape != reference.shape:
        return float("inf")
    difference = (ours.detach().double() - reference.double()).abs()
    return float(torch.where(difference.isnan(), torch.inf, difference).max())


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("case", type=Path, help="path of the case without its extension")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    found = differences(args.system, args.case)
    for name, difference in found.items():
        sys.stdout.write(f"{name:<40} {difference:.3e}{'' if difference <= args.tolerance else '  EXCEEDS'}\n")
    worst = max(found.values())
    sys.stdout.write(f"{len(found)} outputs, largest difference {worst:.3e}, tolerance {args.tolerance:g}\n")
    sys.exit(worst > args.tolerance)


if __name__ == "__main__":
    main()
