"""Outputs of a frozen part of a network in a folder: a file that is mapped, and an index by the content of the input.

An input that is not in the index is computed, so a cache can be too small, of other data or damaged, and never wrong. How far
the frozen part reaches is a *cut*, a number; a run starts from the deepest cut that is there and is not beyond its own.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ablation.files import write_json

log = logging.getLogger(__name__)

INDEX, OUTPUTS = "index.json", "outputs.bin"
COMPUTED = 2  # steps of each shape: the first makes the optimizer's state, the second finds it there
ALIGNED = 64  # bytes, to which each output begins
MARK = "state."  # before the names of outputs in a batch
Outputs = dict[str, Tensor]


def digest_of(value: Tensor) -> str:
    """Names an input on the CPU by its content."""
    found = hashlib.blake2b(f"{value.dtype} {tuple(value.shape)} ".encode(), digest_size=16)
    found.update(value.contiguous().numpy().data)
    return found.hexdigest()


class Cache:
    """What a run reads: outputs at ``cut`` or before it. ``identity``: of what may have made them."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], cut: float):
        """A folder that is damaged or of something else is a cache of nothing; the log tells why."""
        self._samples: dict[str, dict[str, list]] = {}
        self._cuts: list[list[str]] = []
        self._computed: dict[tuple[int, ...], set[tuple[int, int]]] = {}
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if different := sorted(key for key in identity if index["identity"].get(key) != identity[key]):
                raise ValueError(f"made with another {', '.join(different)}")
            if (folder / OUTPUTS).stat().st_size != index["bytes"]:
                raise ValueError("not of the size that its index says")
            if not index["bytes"]:
                return
            self._bytes = np.memmap(folder / OUTPUTS, mode="c")  # private, so that torch takes it for writable
            self._samples = index["samples"]
            self._cuts = [index["cuts"][key] for key in sorted(index["cuts"], key=int, reverse=True) if int(key) <= cut]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: not read, what it holds is computed: %s", folder, error)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Outputs] | None:
        """For each input the outputs at one cut, the deepest that all have; None where some have none."""
        found = [self._samples.get(digest_of(value)) for value in inputs] if self._samples else []
        for names in self._cuts:
            if found and all(entry is not None and entry.keys() >= set(names) for entry in found):
                outputs = [{name: self._read(entry[name]) for name in names} for entry in found]
                return outputs if all(value is not None for one in outputs for value in one.values()) else None
        return None

    def instead_of(self, name: str, samples: list[dict[str, Tensor]], step: tuple[int, int]) -> list[dict[str, Tensor]]:
        """Samples of a batch with outputs in place of the input ``name``, if all of them have some; else as they are.

        As they are, too, in the first steps of each shape: so the memory that a run is measured to need is that of computing
        all, whatever is in the cache. ``step``: epoch and number.
        """
        inputs = [sample[name] for sample in samples]
        computed = self._computed.setdefault((len(inputs), *inputs[0].shape), {step})
        if len(computed) < COMPUTED:
            computed.add(step)
        outputs = None if step in computed else self(inputs)
        if outputs is None:
            return samples
        rest = [{key: value for key, value in sample.items() if key != name} for sample in samples]
        pairs = zip(rest, outputs, strict=True)
        return [{**one, **{f"{MARK}{key}": value[0] for key, value in made.items()}} for one, made in pairs]

    def _read(self, entry: list) -> Tensor | None:
        offset, shape, kind, checksum = entry
        dtype = getattr(torch, kind)
        content = self._bytes[offset : offset + int(np.prod(shape)) * dtype.itemsize]
        if zlib.crc32(content) != checksum:
            log.warning("the prefix cache is damaged at byte %d; what was there is computed", offset)
            return None
        return torch.from_numpy(np.asarray(content)).view(dtype).view(shape)


def take_state(batch: dict[str, Tensor]) -> Outputs | None:
    """The outputs that a batch holds in place of an input; None where it holds none.

    They are taken out of it: it outlives the forward pass, and they shall not, as those that are computed do not.
    """
    names = [key for key in batch if key.startswith(MARK)]
    return {name.removeprefix(MARK): batch.pop(name) for name in names} or None


class Filling:
    """A cache in the making, in a folder that is there, of at most ``limit`` bytes."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit, self.written = folder, limit, 0
        self.samples: dict[str, dict[str, list]] = {}
        self.cuts: dict[int, list[str]] = {}
        self._file: BinaryIO = (folder / OUTPUTS).open("wb")

    def add(self, value: Tensor, at_cuts: Mapping[int, Outputs]) -> bool:
        """Keep the outputs for the input ``value``; False, and nothing kept, where there is no room."""
        outputs = {name: output.cpu().contiguous() for made in at_cuts.values() for name, output in made.items()}
        if self.written + size_of(outputs) + ALIGNED * len(outputs) > self.limit:
            return False
        entry = self.samples.setdefault(digest_of(value), {})
        for name, output in outputs.items():
            if name not in entry:
                content = output.flatten().view(torch.uint8).numpy()
                entry[name] = [self.written, list(output.shape), str(output.dtype).removeprefix("torch."), zlib.crc32(content)]
                self._file.write(content.data)
                self._file.write(bytes(-content.nbytes % ALIGNED))
                self.written = self._file.tell()
        self.cuts |= {cut: list(made) for cut, made in at_cuts.items()}
        return True

    def close(self, identity: Mapping[str, Any]) -> None:
        """Write the index; without it, the folder is no cache."""
        self._file.close()
        index = {"identity": identity, "bytes": self.written, "cuts": self.cuts, "samples": self.samples}
        write_json(self.folder / INDEX, index)


def size_of(outputs: Mapping[str, Tensor]) -> int:
    """Bytes."""
    return sum(output.numel() * output.dtype.itemsize for output in outputs.values())
