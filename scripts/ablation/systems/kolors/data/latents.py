"""The pictures as the autoencoder sees them, written once and read through a memory map.

``latents.npy`` [pictures, 2, C, S / f, S / f], fp16: mean and logarithm of the variance of each picture's posterior.
``latents.json``: the pictures' paths in this order, the resolution S, and the factor that the UNet wants latents times.
``done.txt``: how many of them are written.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ablation.errors import UserError
from ablation.files import write_json, write_text
from ablation.systems.kolors.data.causes import Bad
from ablation.systems.kolors.data.crop import cropped
from ablation.systems.kolors.data.images import read_image
from ablation.systems.kolors.data.layouts import Layout
from ablation.systems.kolors.weights import DOWNLOAD
from ablation.systems.released import load_frozen

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

log = logging.getLogger(__name__)

GIB = 2**30
LATENTS, ABOUT, DONE = "latents.npy", "latents.json", "done.txt"
AT_ONCE = 8
"""Pictures in memory; the autoencoder, sliced, takes them one after the other."""
FP16_RANGE = torch.finfo(torch.float16).max


class Latents:
    """The posteriors of pictures, by their paths."""

    def __init__(self, folder: Path):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.resolution, self.scaling_factor = about["resolution"], about["scaling_factor"]
        self._rows = {image: row for row, image in enumerate(about["images"])}
        self._path = folder / LATENTS
        self._open: NDArray[np.float16] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one picture's latents: channels, height, width."""
        return tuple(self._map().shape[2:])

    def __call__(self, image: str, noise: NDArray[np.float32]) -> Tensor:
        """Latents [C, h, w] drawn from the posterior of ``image`` with ``noise`` of this shape, in the UNet's scale."""
        if image not in self._rows:
            raise UserError(f"{self._path}: knows no picture {image!r}; delete its folder to prepare it anew")
        mean, logvar = self._map()[self._rows[image]].astype(np.float32)
        return torch.from_numpy((mean + np.exp(logvar / 2) * noise) * np.float32(self.scaling_factor))

    def _map(self) -> NDArray[np.float16]:
        if self._open is None:
            self._open = np.load(self._path, mmap_mode="r")
        return self._open

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}  # a map that crosses into another process would be copied into memory


def load_vae(folder: Path, device: torch.device) -> "AutoencoderKL":
    """The autoencoder in ``folder``, frozen, in fp32: SDXL's gives NaN in fp16."""
    from diffusers import AutoencoderKL

    how = {"use_safetensors": True, "torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    vae = load_frozen(AutoencoderKL, folder, DOWNLOAD, **how)
    vae.enable_slicing()
    return vae.to(device)


def factor_of(vae: "AutoencoderKL") -> int:
    """Pixels a side of one latent cell."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def write_latents(layouts: Sequence[Layout], root: Path, vae: "AutoencoderKL", resolution: int, out: Path) -> None:
    """The posteriors of all pictures of ``layouts``, each once; goes on where an interrupted writing of the same stopped.

    UserError where a picture has changed or the disk has no room.
    """
    sizes = {layout.image: (layout.width, layout.height) for layout in layouts}
    if resolution % (factor := factor_of(vae)):
        raise UserError(f"data.resolution = {resolution} must be a multiple of the autoencoder's factor {factor}")
    side = resolution // factor
    shape = (len(sizes), 2, vae.config.latent_channels, side, side)
    about = {"resolution": resolution, "scaling_factor": vae.config.scaling_factor, "images": list(sizes)}
    done = _begin(about, shape, out)
    found, images = open_memmap(out / LATENTS, mode="r+"), islice(sizes.items(), done, None)
    with tqdm(total=len(sizes), initial=done, desc="encoding pictures", unit="image", disable=None) as bar:
        while batch := list(islice(images, AT_ONCE)):
            pictures = [_picture(root, image, size, resolution) for image, size in batch]
            found[done : done + len(batch)] = encode(vae, pictures).numpy()
            found.flush()
            done += len(batch)
            write_text(out / DONE, str(done))
            bar.update(len(batch))


@torch.inference_mode()
def encode(vae: "AutoencoderKL", pictures: Sequence[Image.Image]) -> Tensor:
    """Mean and log variance of the posteriors of square ``pictures`` [N, 2, C, h, w], fp16, on the CPU."""
    pixels = torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures]).permute(0, 3, 1, 2)
    posterior = vae.encode(pixels.to(vae.device, vae.dtype) / 127.5 - 1).latent_dist
    found = torch.stack([posterior.mean, posterior.logvar], dim=1).cpu()
    if not (found.abs() <= FP16_RANGE).all():
        raise UserError("the autoencoder gives numbers that are not finite, or beyond fp16; are these its weights?")
    return found.half()


def _picture(root: Path, image: str, size: tuple[int, int], resolution: int) -> Image.Image:
    try:
        opened = read_image(root, image)
    except Bad as error:
        raise UserError(f"{root / image}: {error.fault.cause} since the layouts were made; delete their folder") from None
    if opened.size != size:
        raise UserError(f"{root / image}: {opened.size} pixels, {size} when the layouts were made; delete their folder")
    return cropped(opened, resolution)


def _begin(about: dict[str, object], shape: tuple[int, ...], out: Path) -> int:
    """Have the files there; how many pictures are in them already."""
    if (out / DONE).is_file() and json.loads((out / ABOUT).read_text(encoding="utf-8")) == about:
        return int((out / DONE).read_text(encoding="utf-8"))
    (out / DONE).unlink(missing_ok=True)
    _check_room(out, 2 * int(np.prod(shape)))
    open_memmap(out / LATENTS, mode="w+", dtype=np.float16, shape=shape).flush()
    write_json(out / ABOUT, about)
    return 0


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    log.info("the latents take %.2f GiB; %.2f GiB are free", needed / GIB, free / GIB)
    if needed > free:
        raise UserError(
            f"the latents need {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free at {out}\n"
            "  a smaller data.resolution needs less; results/ may be a link to a larger disk"
        )
