"""Reading Hunyuan3D-2.1's released weights: three networks in one file.

``model.fp16.ckpt`` nests them ({"model", "vae", "conditioner"}); a .safetensors file cannot, and has these names as prefixes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from ablation.errors import UserError
from ablation.systems.weights import fill_strictly, read_weights

DOWNLOAD = """\
  Hunyuan3D-2.1: hf download tencent/Hunyuan3D-2.1 hunyuan3d-dit-v2-1/model.fp16.ckpt --local-dir models/Hunyuan3D-2.1
  Licence: Tencent Hunyuan 3D 2.1 Community; not for the EU, the UK and South Korea."""

UNTRAINED = "without pretrained weights the transformer trains from scratch, and its loss stays near 1.95"

SETTINGS = {"model": "model.architecture", "vae": "model.autoencoder", "conditioner": "model.conditioner"}
"""The parts of the file, and what of a study must fit them."""

PARTS = tuple(SETTINGS)

RENAMED = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}
"""Names of DINOv2 in transformers 4, with which the file was written, to those of transformers 5."""


def load_weights(parts: Mapping[str, nn.Module], path: Path) -> None:
    """Fill the networks ``parts``, some or all of ``model``, ``vae`` and ``conditioner``, in fp32; every name must match."""
    states = _by_part(_by_name(read_weights(path, DOWNLOAD)))
    absent = [name for name in parts if name not in states]
    if absent:
        raise UserError(f"{path}: holds no {', '.join(absent)}; its parts are: {', '.join(states) or 'none'}\n{DOWNLOAD}")
    for name, network in parts.items():
        fill_strictly(network, states[name], f"{path} ({name})", SETTINGS[name])


def missing_parts(path: Path) -> str | None:
    """Why the file at ``path`` is not one of all three networks, in a line; None if it is. Reads names alone."""
    if not path.is_file():
        return f"{path} is not there"
    try:
        names = _names(path)
    except UserError as error:
        return str(error).splitlines()[0]
    absent = [part for part in PARTS if not any(name == part or name.startswith(f"{part}.") for name in names)]
    return f"{path} holds no {', '.join(absent)}" if absent else None


def _names(path: Path) -> list[str]:
    """The names at the top of the file, without reading its tensors."""
    if path.suffix != ".safetensors":
        return list(_by_name(read_weights(path, DOWNLOAD)))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read as weights; truncated? ({error})") from None


def _by_name(state: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if isinstance(name, str)}


def _by_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of each part that ``state`` has, nested or by prefixes, under today's names."""
    parts = {name: state[name] for name in SETTINGS if name in state}
    for name in SETTINGS.keys() - parts.keys():
        flat = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        if flat:
            parts[name] = flat
    if isinstance(parts.get("conditioner"), dict):
        parts["conditioner"] = {todays_name(key): value for key, value in _by_name(parts["conditioner"]).items()}
    return {name: parts[name] for name in SETTINGS if name in parts}


def todays_name(name: str) -> str:
    """A parameter of DINOv2 by its name in transformers 5, given either name."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name
