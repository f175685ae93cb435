"""From images to meshes: latents are sampled, decoded to a field, and its surface is taken."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablation.systems.hunyuan3d import flow
from ablation.systems.hunyuan3d.mesh import Mesh
from ablation.systems.hunyuan3d.network import ShapeGenerator
from ablation.systems.hunyuan3d.settings import Evaluation
from ablation.systems.hunyuan3d.surface import EmptySurface, decode_grid, extract_surface


class Generated(NamedTuple):
    """A shape as the network sees it: tokens of its field [1, latents, C], and its mesh, or why there is none."""

    tokens: Tensor
    mesh: Mesh | None
    diagnosis: str | None
    logits: tuple[float, float] | None
    """The least and the greatest on the grid; None where one is not finite."""


@torch.no_grad()
def generate(
    network: ShapeGenerator, image: Tensor, noise: Tensor, how: Evaluation, resolution: int | None = None
) -> Generated:
    """One shape from ``image`` [3, H, W] and ``noise`` [latents, C]; ``resolution``: another than that of ``how``."""
    condition = network.describe(image[None])
    latents = flow.sample(network.velocity, noise[None], condition, how.steps, how.guidance)
    return decoded(network, latents, resolution or how.resolution)


@torch.no_grad()
def decoded(network: ShapeGenerator, latents: Tensor, resolution: int) -> Generated:
    """The shape of scaled ``latents`` [1, latents, C]."""
    tokens = network.vae.decode(latents)
    values = decode_grid(lambda places: field(network, tokens, places), resolution, device=latents.device)
    low, high = float(values.min()), float(values.max())
    logits = (low, high) if np.isfinite([low, high]).all() else None
    try:
        return Generated(tokens, extract_surface(values), None, logits)
    except EmptySurface as empty:
        return Generated(tokens, None, str(empty), logits)


@torch.no_grad()
def field(network: ShapeGenerator, tokens: Tensor, places: Tensor) -> Tensor:
    """Logits [Q] at ``places`` [Q, 3], positive inside."""
    return network.vae.field(places[None], tokens)[0]


def occupied(network: ShapeGenerator, tokens: Tensor, places: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether ``places`` [Q, 3] lie inside the shape of ``tokens``."""
    on_device = torch.from_numpy(np.asarray(places, dtype=np.float32)).to(tokens.device)
    return (field(network, tokens, on_device) > 0).cpu().numpy()
