"""The cache of latents: all images through the autoencoder once, in all their versions.

``latents.npy`` [images, versions, 2C, h, w], fp16: means and log-variances of the distribution that training draws from. The
versions are the central crop and random ones, each as it is and, with ``flip``, mirrored.
"""

import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ablation.errors import UserError
from ablation.systems.dit.data.images import centred, cropped, mirrored, read_picture
from ablation.systems.dit.data.listing import Listed
from ablation.systems.dit.settings import Data

GIB = 2**30
FILE = "latents.npy"
AT_ONCE = 32  # versions of images through the autoencoder

Encode = Callable[[Tensor], Tensor]
"""Images [N, 3, S, S], uint8 -> means and log-variances [N, 2C, h, w]."""


class Latents:
    """Cached distributions, read through a memory map."""

    def __init__(self, folder: Path):
        self._path = folder / FILE
        self._map: NDArray[np.float16] | None = None

    def __call__(self, image: int, version: int) -> Tensor:
        """Mean and log-variance [2C, h, w] of a version of an image, fp32."""
        if self._map is None:
            self._map = np.load(self._path, mmap_mode="r")
        return torch.from_numpy(self._map[image, version].astype(np.float32))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_map": None}  # a map that crosses into another process would be copied into memory


def cache_latents(listed: Listed, encode: Encode, data: Data, out: Path) -> None:
    """The latents of all images. UserError where the disk has no room for them, or they do not fit fp16."""
    latents: NDArray[np.float16] | None = None
    at_once = max(1, AT_ONCE // data.versions)
    for start in tqdm(range(0, len(listed.images), at_once), desc="encoding images", disable=None):
        images = listed.images[start : start + at_once]
        versions = [version for told in images for version in versions_of(listed.root / told.file, told.file, data)]
        encoded = encode(torch.stack(versions)).numpy().astype(np.float16)
        if latents is None:
            shape = (len(listed.images), data.versions, *encoded.shape[1:])
            _check_room(out, int(np.prod(shape)) * encoded.itemsize)
            latents = open_memmap(out / FILE, mode="w+", dtype=np.float16, shape=shape)
        latents[start : start + at_once] = encoded.reshape(len(images), *latents.shape[1:])
        _check_numbers(listed, start, latents[start : start + at_once])
    latents.flush()


def _check_numbers(listed: Listed, start: int, latents: NDArray[np.float16]) -> None:
    bad = np.flatnonzero(~np.isfinite(latents).reshape(len(latents), -1).all(axis=1))
    if len(bad):
        raise UserError(f"{listed.root / listed.images[start + bad[0]].file}: its latents are not finite, or beyond fp16")


def versions_of(path: Path, name: str, data: Data) -> Iterator[Tensor]:
    """All versions of an image [3, S, S], uint8; a crop is a pure function of the image's name and its number."""
    picture = read_picture(path)
    crops = [centred(picture, data.size)]
    for number in range(1, data.crops + 1):
        crops.append(cropped(np.random.default_rng([zlib.crc32(name.encode()), number]), picture, data.size))
    for crop in crops:
        yield crop
        if data.flip:
            yield mirrored(crop)


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        words = f"the latents need {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free at {out}"
        raise UserError(f"{words}\n  fewer data.samples or data.crops need less; results/ may be a link to a larger disk")
