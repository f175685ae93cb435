"""Reading pretrained weights, strictly by name: what all systems share."""

import difflib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    state = read_weights(path, download)
    if isinstance(state.get(DEEPSPEED_KEY), dict):
        state = state[DEEPSPEED_KEY]
    fill_strictly(model, state, str(path), ignored=ignored)


def read_weights(path: Path, download: str) -> dict[str, Any]:
    """What the safetensors or pickle file at ``path`` holds: tensors by name, or dicts of them. Raises UserError naming it."""
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
    if not isinstance(state, dict):
        raise UserError(_not_plain(str(path)))
    return state


def fill_strictly(
    model: nn.Module, state: object, source: str, setting: str = "model.architecture", ignored: str | None = None
) -> None:
    """Fill ``model`` from ``state`` (name -> tensor) in fp32; every name and shape must match, those from ``ignored`` on aside.

    ``source`` says where the state comes from, ``setting`` which part of a study must fit it. Raises UserError naming both.
    """
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(_not_plain(source))
    state = {name: value for name, value in state.items() if ignored is None or not name.startswith(ignored)}
    _check(source, setting, _shapes(model.state_dict()), _shapes(state))
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)


def _not_plain(source: str) -> str:
    return f"{source}: holds no plain state dict (name -> tensor)"


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _check(source: str, setting: str, wanted: dict[str, tuple], given: dict[str, tuple]) -> None:
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
        raise UserError("\n".join([f"{source}: does not fit {setting}", *lines]) + hint)
