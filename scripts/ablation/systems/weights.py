"""Reading pretrained weights, strictly by name: what all systems share."""

import difflib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
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
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UserError:
        raise
    except Exception as error:  # a damaged file leads to any
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: cannot be read as weights; truncated, or not a plain state dict? ({first})") from None
    if not isinstance(state, dict):
        raise UserError(_not_plain(str(path)))
    return state


def _check_archive(path: Path) -> None:
    """torch packs nothing; an archive that is packed may be one of a thousand times its size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size for entry in entries):
            raise UserError(f"{path}: is a packed archive, which PyTorch writes none of; save it with torch.save")


def fill_strictly(
    model: nn.Module,
    state: object,
    source: str,
    setting: str = "model.architecture",
    ignored: str | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> None:
    """Fill ``model`` from ``state`` (name -> tensor); every name and shape must match, those from ``ignored`` on aside.

    ``source`` says where the state comes from, ``setting`` which part of a study must fit it; ``dtype`` what the model is held
    in, None as the state has it. Raises UserError naming source and setting.
    """
    if not isinstance(state, dict) or not all(isinstance(name, str) and _is_plain(value) for name, value in state.items()):
        raise UserError(_not_plain(source))
    state = {name: value for name, value in state.items() if ignored is None or not name.startswith(ignored)}
    _check(source, setting, _shapes(model.state_dict()), _shapes(state))
    model.load_state_dict({name: value.to(dtype or value.dtype) for name, value in state.items()}, assign=True)


def _is_plain(value: object) -> bool:
    """Numbers in rows, held here: not sparse, quantized, complex, or a promise of numbers."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex() or value.is_nested)
    )


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


def check_shapes(
    path: Path, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor | None], all_of_them: bool = False
) -> None:
    """Raises UserError where a tensor is not one of the model's, in that shape."""
    for name, value in given.items():
        if (mine := wanted.get(name)) is None or mine.shape != value.shape:
            raise UserError(f"{path}: weights of another model, such as {name} {list(value.shape)}; train the run again")
    if all_of_them and (missing := sorted(wanted.keys() - given.keys())):
        raise UserError(f"{path}: lacks {len(missing)} parameters, such as {missing[0]}; train the run again")
