"""Reading pretrained weights, strictly by name: what all systems share."""

import difflib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ablation.errors import UserError

SHOWN = 5  # names listed of each kind of mismatch
DEEPSPEED_KEY = "module"  # under which DeepSpeed's files hold the state dict


def load_strictly(model: nn.Module, path: Path, download: str, ignored: str | None = None) -> None:
    """Fill ``model`` from the file at ``path`` in fp32; every name and shape must match.

    Takes safetensors, a pickled state dict, and what DeepSpeed writes. ``download`` says where the file comes from; names that
    start with ``ignored`` are left out. Raises UserError naming file and parameters.
    """
    state = {name: value for name, value in _read(path, download).items() if ignored is None or not name.startswith(ignored)}
    _check(path, _shapes(model.state_dict()), _shapes(state))
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)


def _read(path: Path, download: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no pretrained weights here\n{download}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as weights; truncated, or not a plain state dict? ({str(error).splitlines()[0]})"
        ) from None
    if isinstance(state, dict) and isinstance(state.get(DEEPSPEED_KEY), dict):
        state = state[DEEPSPEED_KEY]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no plain state dict (name -> tensor)")
    return state


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


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
