"""Points on the sharp edges of a mesh."""

import numpy as np
import trimesh

from ablation.systems.hunyuan3d.mesh import Mesh, Samples

SHARP = np.radians(30)  # between the normals of the two triangles of an edge; a choice of our own


def sample_sharp_edges(mesh: Mesh, count: int, rng: np.random.Generator) -> Samples:
    """``count`` points, evenly by length, with the mean of both triangles' normals; none if no edge is sharp."""
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    is_sharp = whole.face_adjacency_angles > SHARP
    ends = whole.vertices[whole.face_adjacency_edges[is_sharp]]  # [E, 2, 3]
    lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    if not lengths.sum() > 0:
        return Samples(np.zeros((0, 3)), np.zeros((0, 3)))
    normals = whole.face_normals[whole.face_adjacency[is_sharp]].sum(axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    chosen, along = rng.choice(len(ends), count, p=lengths / lengths.sum()), rng.random((count, 1))
    return Samples((1 - along) * ends[chosen, 0] + along * ends[chosen, 1], normals[chosen])
