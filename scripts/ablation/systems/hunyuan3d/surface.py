"""From a field to the surface where it has a given level: values on a grid, then marching cubes."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from ablation.errors import UserError
from ablation.systems.hunyuan3d.mesh import Mesh

BOX = 1.01  # the grid spans [-BOX, BOX] along each axis; shapes lie within [-1, 1]
RESOLUTION = 384  # the release's octree resolution
LEVEL = 0.0
HEALTHY = "a shape's logits lie on both sides, those of the release from about -1.03 to 1.03"

Field = Callable[[Tensor], Tensor]
"""Places [Q, 3] -> values [Q]: logits, positive inside the shape."""


class EmptySurface(UserError):
    """The field has no surface of the wanted level within the grid."""


def places(indices: Tensor, resolution: int) -> Tensor:
    """Flat ``indices`` [Q] into the grid, z fastest -> places [Q, 3]."""
    along = torch.linspace(-BOX, BOX, resolution + 1, device=indices.device)
    return along[torch.stack(torch.unravel_index(indices, (resolution + 1,) * 3), dim=-1)]


@torch.no_grad()
def decode_grid(
    field: Field, resolution: int = RESOLUTION, at_once: int = 65_536, device: torch.device | None = None
) -> NDArray[np.float32]:
    """Values of ``field`` on the corners of ``resolution`` cells an axis [R + 1, R + 1, R + 1], ``at_once`` places a time."""
    side = resolution + 1
    values = np.empty(side**3, dtype=np.float32)
    for start in range(0, side**3, at_once):
        end = min(start + at_once, side**3)
        values[start:end] = field(places(torch.arange(start, end, device=device), resolution)).float().cpu().numpy()
    return values.reshape(side, side, side)


def extract_surface(values: NDArray[np.floating], level: float = LEVEL) -> Mesh:
    """The surface of ``level`` in the grid ``values`` [R + 1, R + 1, R + 1] as a mesh; larger values lie inside.

    Raises EmptySurface when ``values`` are not finite or lie all on one side of ``level``.
    """
    _check(values, level)
    cell = 2 * BOX / (len(values) - 1)
    # scikit-image winds its triangles by the left hand: what it calls an ascent is counterclockwise around larger values
    vertices, faces, _, _ = marching_cubes(
        values, level, spacing=(cell,) * 3, gradient_direction="ascent", allow_degenerate=False
    )
    return Mesh(vertices - BOX, faces)


def _check(values: NDArray[np.floating], level: float) -> None:
    broken = int(values.size - np.isfinite(values).sum())
    if broken:
        nans = int(np.isnan(values).sum())
        raise EmptySurface(
            f"no surface: {broken} of {values.size} logits are not finite ({nans} NaN)\n"
            "  the weights or the latents are broken: look for the first NaN of the training loss; fp16 may overflow"
        )
    low, high = float(values.min()), float(values.max())
    if not low < level < high:
        raise EmptySurface(
            f"no surface at level {level:g}: the logits range from {low:.4g} to {high:.4g}, all on one side of it\n"
            f"  {HEALTHY}; were the pretrained weights of the transformer and the autoencoder loaded?"
        )
