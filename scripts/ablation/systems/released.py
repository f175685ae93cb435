"""Frozen networks from folders in the layout of transformers or diffusers: ``config.json`` and weights. What systems share."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablation.errors import UserError
from ablation.outside import MIB, read_json

SHOWN = 5  # names listed of a mismatch
MOST_LAYERS = 1000
LARGEST_SIZE = 10**9
LOADS_MORE = ("quantization_config", "attn_implementation", "_attn_implementation", "_attn_implementation_internal")
"""What of a description has transformers load other code."""
ADAPTER = "adapter_config.json"  # with which transformers takes the network from wherever that file says


def encoder_device() -> torch.device:
    """Where what is cached before training is computed: the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read_config(folder: Path, download: str) -> dict[str, Any]:
    """The description of the network in ``folder``. Raises UserError naming the file; ``download`` says where it comes from."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{path} is not there\n{download}")
    try:
        config = read_json(path, MIB)
    except UserError as error:
        raise UserError(f"{error}\n  it is no description of a network") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: no description of a network (a {type(config).__name__})")
    for name, size in _sizes(config):
        if size > (MOST_LAYERS if "layers" in name else LARGEST_SIZE):
            raise UserError(f"{path}: {name} = {size:.6g} is beyond all networks that there are")
    return config


def _sizes(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in a description, with the keys they stand under."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _sizes(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _sizes(inner, name)
    elif isinstance(value, int | float):
        yield name, abs(value) if abs(value) <= LARGEST_SIZE else float("inf")


def check_folder(folder: Path, download: str) -> None:
    """Raises UserError where ``folder`` would have transformers or diffusers read more than the network that is in it."""
    config = read_config(folder, download)
    if more := [name for name in LOADS_MORE if config.get(name) is not None]:
        raise UserError(f"{folder / 'config.json'}: {more[0]} asks for code of others, which is not loaded")
    if (folder / ADAPTER).exists():
        raise UserError(f"{folder / ADAPTER}: this is an adapter to a network that is elsewhere; the network itself is needed")
    for index in sorted(folder.glob("*.index*.json")):
        content = read_json(index, 64 * MIB)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict) or not all(
            isinstance(each, str) and Path(each).name == each for each in shards.values()
        ):
            raise UserError(f"{index}: no index of weights; `weight_map` must give a file beside it for each name")


def load_frozen(kind: type, folder: Path, download: str, unused: Iterable[str] = (), **options: Any) -> nn.Module:
    """The network in ``folder``, frozen, in evaluation mode. ``options``: more for its ``from_pretrained``, such as its type.

    Every parameter must be there, and nothing else but what starts with one of ``unused``. Raises UserError naming the folder.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    check_folder(folder, download)
    for logging in (transformers_logging, diffusers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        model, found = kind.from_pretrained(str(folder), local_files_only=True, output_loading_info=True, **options)
    except Exception as error:  # whatever the description leads to
        raise UserError(f"{folder}: cannot be read as {kind.__name__} ({first_line(error)})\n{download}") from None
    unknown = [name for name in found["unexpected_keys"] if not name.startswith(tuple(unused))]
    if wrong := sorted(found["missing_keys"]) or sorted(unknown):
        what = "lacks" if found["missing_keys"] else "has too much:"
        raise UserError(f"{folder}: is no {kind.__name__}: {what} {len(wrong)} parameters, {', '.join(wrong[:SHOWN])}")
    return model.eval().requires_grad_(False)


def first_line(error: Exception) -> str:
    """Of its message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
