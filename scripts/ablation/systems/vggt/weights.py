"""Reading VGGT's released weights, strictly by name."""

import difflib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ablation.errors import UserError
from ablation.systems.vggt.model.vggt import IGNORED

SHOWN = 5  # names listed of each kind of mismatch

DOWNLOAD = """\
  VGGT-1B: hf download facebook/VGGT-1B model.safetensors --local-dir models/VGGT-1B   (5 GB)
  Licence: non-commercial for VGGT-1B; VGGT-1B-Commercial (gated) has the same architecture and allows commercial use."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` from ``model.safetensors`` or ``model.pt`` in fp32; every name must match, ``track_head.*`` aside."""
    state = {name: value for name, value in _read(path).items() if not name.startswith(IGNORED)}
    _check(
        path,
        {name: tuple(v.shape) for name, v in model.state_dict().items()},
        {name: tuple(v.shape) for name, v in state.items()},
    )
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no pretrained weights here\n{DOWNLOAD}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as weights; truncated, or not a plain state dict? ({str(error).splitlines()[0]})"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no plain state dict (name -> tensor)")
    return state


def _check(path: Path, wanted: dict[str, tuple], given: dict[str, tuple]) -> None:
    missing, unexpected = [n for n in wanted if n not in given], [n for n in given if n not in wanted]
    reshaped = [
        f"{n}: {given[n]} in the file, {wanted[n]} in the model" for n in wanted if n in given and given[n] != wanted[n]
    ]
    lines = []
    for what, names in (
        ("missing in the file", missing),
        ("not in the model", unexpected),
        ("of another shape", reshaped),
    ):
        if names:
            more = f" ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"  {len(names)} parameters {what}: {', '.join(names[:SHOWN])}{more}")
    if lines:
        near = difflib.get_close_matches(unexpected[0], missing, n=1) if unexpected and missing else []
        hint = f"\n  {unexpected[0]} looks like {near[0]}" if near else ""
        raise UserError("\n".join([f"{path}: does not fit model.architecture", *lines]) + hint)
