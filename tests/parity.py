"""Compare our networks with stored outputs of the reference implementations.

    python tests/parity.py SYSTEM CASE [--tolerance 1e-4]

CASE is the path of a case without its extension: ``CASE.config.json`` says how to build the model, ``CASE.safetensors``
holds ``weights/``, ``inputs/`` and ``outputs/``. Prints the largest difference of every output: absolute, or for gradients
(``-grad``) and optimizer steps (``-steps``) relative to the largest value of that output. The exit status is not zero when
one exceeds the tolerance or is missing.
"""

import argparse
import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import torch
from parity_cases import Tensors
from safetensors.torch import load_file
from torch import Tensor


class Compared(NamedTuple):
    """How a system's cases are compared: ``function``, in a module of parity_cases, from (config, weights, inputs) to outputs.

    It is imported when it is asked for, and called without gradients; one whose case stores some switches them on for itself.
    """

    function: str
    tolerance: float = 1e-4
    relative: bool = False


def _gradients(function: str) -> Compared:
    return Compared(function, relative=True)


def _steps(function: str) -> Compared:
    return Compared(function, tolerance=1e-5, relative=True)


SYSTEMS = {
    "vggt": Compared("vggt.vggt"),
    "vggt-loss": Compared("vggt.vggt_loss"),
    "vggt-grad": _gradients("vggt.vggt_grad"),
    "vggt-train-grad": _gradients("vggt.vggt_train_grad"),
    "vggt-steps": _steps("vggt.vggt_steps"),
    "rdt": Compared("rdt.rdt"),
    "rdt-grad": _gradients("rdt.rdt_grad"),
    "rdt-steps": _steps("rdt.rdt_steps"),
    "hunyuan3d_dit": Compared("hunyuan3d.hunyuan3d_dit"),
    "hunyuan3d-grad": _gradients("hunyuan3d.hunyuan3d_grad"),
    "hunyuan3d-steps": _steps("hunyuan3d.hunyuan3d_steps"),
    "kolors-grad": _gradients("kolors.kolors_grad"),
    "kolors-steps": _steps("kolors.kolors_steps"),
    "dit-grad": _gradients("dit.dit_grad"),
    "dit-caption-grad": _gradients("dit.dit_grad"),
    "dit-steps": _steps("dit.dit_steps"),
}


def outputs(system: str, config: dict[str, Any], weights: Tensors, inputs: Tensors) -> Tensors:
    """What our implementation gives."""
    module, function = SYSTEMS[system].function.split(".")
    with torch.no_grad():
        return getattr(import_module(f"parity_cases.{module}"), function)(config, weights, inputs)


def differences(system: str, case: Path) -> dict[str, float]:
    """Largest difference of every stored output, as its system is compared; infinite where ours is missing or misshapen."""
    config = json.loads(Path(f"{case}.config.json").read_text())
    stored: dict[str, Tensors] = {"weights": {}, "inputs": {}, "outputs": {}}
    for name, value in load_file(f"{case}.safetensors").items():
        kind, rest = re.fullmatch(r"(weights|inputs|outputs)/(.+)", name).groups()
        stored[kind][rest] = value
    ours = outputs(system, config, stored["weights"], stored["inputs"])
    relative = SYSTEMS[system].relative
    return {name: _difference(ours.get(name), value, relative) for name, value in stored["outputs"].items()}


def _difference(ours: Tensor | None, reference: Tensor, relative: bool) -> float:
    if ours is None or ours.shape != reference.shape:
        return float("inf")
    difference = (ours.detach().double() - reference.double()).abs()
    largest = float(torch.where(difference.isnan(), torch.inf, difference).max())
    return largest / float(reference.double().abs().max()) if relative and largest else largest


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("case", type=Path, help="path of the case without its extension")
    parser.add_argument("--tolerance", type=float, help="left out, that of the system")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the networks are small
    how = SYSTEMS[args.system]
    tolerance = how.tolerance if args.tolerance is None else args.tolerance
    found = differences(args.system, args.case)
    for name, difference in found.items():
        sys.stdout.write(f"{name:<40} {difference:.3e}{'' if difference <= tolerance else '  EXCEEDS'}\n")
    worst, kind = max(found.values()), "relative" if how.relative else "absolute"
    sys.stdout.write(f"{len(found)} outputs, largest {kind} difference {worst:.3e}, tolerance {tolerance:g}\n")
    sys.exit(worst > tolerance)


if __name__ == "__main__":
    main()
