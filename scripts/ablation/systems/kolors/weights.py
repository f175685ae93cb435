"""Reading the frozen networks from a folder in diffusers' layout: ``config.json`` beside safetensors, one file or several."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablation.errors import UserError
from ablation.outside import MIB, read_json
from ablation.systems.released import read_config
from ablation.systems.weights import fill_strictly, read_weights

DOWNLOAD = """\
  Kolors (about 18 GB):
    hf download Kwai-Kolors/Kolors-diffusers --include "unet/*fp16*" --include "text_encoder/*fp16*" \\
      --include "vae/*" --include "tokenizer/*" --include "*/*.json" --local-dir models/Kolors-diffusers
  Licence: free for research; commercial use by registration with its authors."""

STEMS = {"unet": "diffusion_pytorch_model", "text_encoder": "model"}
"""How the files of each network are called."""

WITHOUT_PARAMETERS = {"seq_length"}
"""What a configuration may say otherwise than the study: it does not change what the network computes."""

Config = Mapping[str, Any]


def load_network(network: nn.Module, folder: Path, name: str, config: Config, dtype: torch.dtype | None) -> None:
    """Fill ``network`` from ``folder``, strictly by name; the file's configuration must be ``config`` where both say something.

    ``dtype``: what it is held in; None: what the file has, for a network that is only ever read. Raises UserError.
    """
    if problem := missing_weights(folder, name):
        raise UserError(f"{problem}\n{DOWNLOAD}")
    _check_config(folder / "config.json", name, config)
    fill_strictly(network, _state(_weight_file(folder, name)), str(folder), f"model.architecture.{name}", dtype=dtype)


def missing_weights(folder: Path, name: str) -> str | None:
    """Why ``folder`` does not hold the network ``name``, in a line; None if it does. Reads no weights."""
    if not (folder / "config.json").is_file():
        return f"{folder / 'config.json'} is not there"
    if _weight_file(folder, name) is None:
        return f"{folder} holds no {STEMS[name]}.safetensors or {STEMS[name]}.fp16.safetensors, nor their index"
    return None


def _weight_file(folder: Path, name: str) -> Path | None:
    """The weights or their index; the halved ones first: they are what is downloaded."""
    stem = STEMS[name]
    names = [f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json", f"{stem}.safetensors"]
    return next((folder / each for each in [*names, f"{names[2]}.index.json"] if (folder / each).is_file()), None)


def _state(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, from one file or from all that an index names."""
    if path.suffix != ".json":
        return read_weights(path, DOWNLOAD)
    shards = _read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise UserError(f"{path}: no index of weights; `weight_map` must give a file for each name")
    state: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise UserError(f"{path}: {shard!r} is no safetensors file beside it")
        state.update(read_weights(path.with_name(shard), DOWNLOAD))
    return state


def _check_config(path: Path, name: str, config: Config) -> None:
    """What a file of weights does not show: numbers of heads, groups of a norm."""
    given = read_config(path.parent, DOWNLOAD)
    differing = [
        f"  {key}: {given[key]} in the file, {wanted} in the study"
        for key, wanted in config.items()
        if key in given and given[key] != wanted and key not in WITHOUT_PARAMETERS
    ]
    if differing:
        raise UserError("\n".join([f"{path}: does not fit model.architecture.{name}", *differing]))


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, 64 * MIB)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return content
