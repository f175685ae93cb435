"""Make the demo's meshes, ``resources/meshes``, from Sweet Home 3D's catalogue of CC0 models: watertight, of few triangles.

The catalogue is in Debian's package: apt-get download sweethome3d-furniture=1.8-1, dpkg -x it, and take
usr/share/sweethome3d/furniture/BlendSwap-CC-0.sh3f. Needs fast-simplification 0.2.0, which nothing else here does.
"""

import argparse
import tempfile
from pathlib import Path
from zipfile import ZipFile

import fast_simplification
import numpy as np
import torch
import trimesh
from scipy.ndimage import binary_dilation, label
from scipy.spatial import cKDTree

from ablation.cli import call
from ablation.errors import UserError
from ablation.systems.hunyuan3d.data.prepare import normalised
from ablation.systems.hunyuan3d.mesh import Mesh, load_mesh, sample_surface
from ablation.systems.hunyuan3d.surface import BOX, extract_surface, places

MODELS = {
    "bear": "teddyBear", "biplane": "cartoon_biplane", "chair": "plasticChair", "chicken": "chicken", "cup": "caffe_final",
    "extinguisher": "fireExtinguisher", "horse": "horse2", "lamp": "desklamp", "mailbox": "mofx_mailbox",
    "piano": "pianoAQueue", "table": "oakTable", "toilet": "toiletsUnit",
}  # fmt: skip
CELLS = 128
SHRUNK = 0.95  # room for the skin within the box
SKIN = 1.0  # cells: so far from the given surfaces, which need not be closed, lies the new one
POINTS = 1_500_000  # that stand for the given surfaces


def closed(soup: Mesh) -> Mesh:
    """The outer skin of any triangles, with all that it encloses: where the distance is ``SKIN``, reached from outside."""
    small = normalised(soup)
    points = sample_surface(small._replace(vertices=small.vertices * SHRUNK), POINTS, seed=0).points
    cell, side = 2 * BOX / CELLS, CELLS + 1
    touched = np.zeros((side,) * 3, dtype=bool)
    touched[tuple(np.rint((points + BOX) / cell).astype(int).T)] = True
    near = binary_dilation(touched, np.ones((3, 3, 3)), iterations=3)
    distances = np.full((side,) * 3, 3.0)  # in cells; farther ones are not needed
    grid = places(torch.from_numpy(np.flatnonzero(near)), CELLS).numpy()
    distances[near] = np.minimum(cKDTree(points).query(grid)[0] / cell, 3)
    regions, _ = label(distances > SKIN)
    depth = np.abs(distances - SKIN)
    return extract_surface(np.where(regions == regions[0, 0, 0], -depth, depth + 1e-6))


def simplified(mesh: Mesh, triangles: int) -> Mesh:
    """At most ``triangles`` triangles, which lie as the many did: the first attempt that is watertight, most are."""
    vertices, faces = mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)
    for count in range(triangles, triangles // 2, -100):
        for haste in np.arange(4, 9, 0.5):
            fewer = trimesh.Trimesh(*fast_simplification.simplify(vertices, faces, target_count=count, agg=haste))
            if fewer.is_watertight and len(fewer.faces) <= triangles:
                return Mesh(np.asarray(fewer.vertices), np.asarray(fewer.faces))
    raise UserError(f"not watertight with {triangles // 2} to {triangles} triangles; try another number")


def main() -> None:
    """Read, close, simplify, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--output", type=Path, default=Path("resources/meshes"))
    parser.add_argument("--triangles", type=int, default=2400)
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ZipFile(args.catalogue) as catalogue:
        for name, model in MODELS.items():
            part = f"blendswap-cc-0/{model}/{model}.obj"
            mesh = simplified(closed(load_mesh(Path(catalogue.extract(part, folder)))), args.triangles)
            trimesh.Trimesh(normalised(mesh).vertices, mesh.faces, process=False).export(args.output / f"{name}.ply")
            print(f"{name}: {len(mesh.faces)} triangles")


if __name__ == "__main__":
    call(main)
