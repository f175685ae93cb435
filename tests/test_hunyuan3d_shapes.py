"""The demo's shapes: the committed meshes, distances to them, and the small autoencoder that was trained on them."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from pretrain_hunyuan3d_vae import DEMO, POINTS, similarities
from safetensors.torch import load_file

from ablation.errors import UserError
from ablation.systems.hunyuan3d.data.distance import distance, inside
from ablation.systems.hunyuan3d.data.frame import HALF
from ablation.systems.hunyuan3d.data.layout import (
    SurfacePoints,
    pick_points,
)
from ablation.systems.hunyuan3d.mesh import Mesh, is_watertight, load_mesh, sample_surface, signed_volume
from ablation.systems.hunyuan3d.metrics import shape_metrics, volume_iou
from ablation.systems.hunyuan3d.surface import decode_grid, extract_surface
from ablation.systems.hunyuan3d.vae.vae import ShapeVAE
from ablation.systems.hunyuan3d.weights import load_weights

MESHES = sorted((ROOT / "resources/meshes").glob("*.ply"))
WEIGHTS = ROOT / "resources/hunyuan3d-demo-vae.safetensors"


def solid_angles(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Winding numbers [N] by another way than the code's: solid angles over 4 pi (Van Oosterom, Strackee 1983)."""
    a, b, c = (mesh.vertices[mesh.faces][None, :, i] - points[:, None] for i in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    triple = (a * np.cross(b, c)).sum(axis=-1)
    below = la * lb * lc + (a * b).sum(axis=-1) * lc + (b * c).sum(axis=-1) * la + (c * a).sum(axis=-1) * lb
    return np.arctan2(triple, below).sum(axis=1) / (2 * np.pi)


def test_the_meshes_are_watertight_and_small():
    assert len(MESHES) == 12
    for path in MESHES:
        mesh = load_mesh(path)
        assert is_watertight(mesh) and signed_volume(mesh) > 0.1, path
        assert len(mesh.faces) <= 3000 and np.abs(mesh.vertices).max() == pytest.approx(HALF, abs=1e-5), path
    assert sum(path.stat().st_size for path in MESHES) < 1e6


def test_the_readme_names_every_mesh():
    text = (ROOT / "resources/meshes/README.md").read_text()
    assert all(path.name in text for path in MESHES) and "CC0" in text


@pytest.mark.parametrize("path", MESHES[:3], ids=lambda path: path.stem)
def test_inside_is_where_the_mesh_winds_around(path):
    mesh = load_mesh(path)
    rng = np.random.default_rng(0)
    near = sample_surface(mesh, 100, seed=0).points + rng.normal(scale=0.01, size=(100, 3))
    places = np.concatenate([rng.uniform(-1, 1, (100, 3)), near, mesh.vertices[:20] * 1.0001])
    assert np.array_equal(inside(mesh, places), np.abs(solid_angles(mesh, places)) > 0.5)


def test_a_distance_is_that_of_the_nearest_of_many_points():
    mesh = load_mesh(MESHES[0])
    places = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    cloud = sample_surface(mesh, 20_000, seed=0).points
    nearest = np.linalg.norm(places[:, None] - cloud[None], axis=-1).min(axis=1)
    found = distance(mesh, places)
    assert (found <= nearest).all() and np.abs(found - nearest).max() < 0.02


def test_no_places_have_no_distances():
    mesh, none = load_mesh(MESHES[0]), np.zeros((0, 3))
    assert distance(mesh, none).shape == inside(mesh, none).shape == (0,)


@pytest.fixture(scope="module")
def vae() -> ShapeVAE:
    model = ShapeVAE(DEMO)
    load_weights({"vae": model}, WEIGHTS)
    return model.eval()


@torch.no_grad()
def encoded(vae: ShapeVAE, mesh: Mesh, seed: int = 0) -> torch.Tensor:
    """Scaled latents [1, latents, channels] of points all over ``mesh``."""
    surface = SurfacePoints(np.concatenate(sample_surface(mesh, POINTS, seed), axis=1), np.zeros((0, 6)))
    points = torch.from_numpy(pick_points(surface, POINTS, 0, np.random.default_rng(seed)))
    return vae.scaled(vae.encode(points[None]).mean)


def decoded(vae: ShapeVAE, latents: torch.Tensor) -> Mesh:
    with torch.no_grad():
        tokens = vae.decode(latents)
    return extract_surface(decode_grid(lambda places: vae.field(places[None], tokens)[0], 32))


@pytest.mark.parametrize("name", ["chicken", "cup"])
def test_the_trained_autoencoder_gives_a_shape_back(vae, name):
    mesh = load_mesh(ROOT / f"resources/meshes/{name}.ply")
    again = decoded(vae, encoded(vae, mesh))
    grid = np.random.default_rng(0).uniform(-1, 1, (8000, 3))
    assert is_watertight(again)
    assert volume_iou(inside(again, grid), inside(mesh, grid)) > 0.8
    assert shape_metrics(sample_surface(again, 4000, 0), sample_surface(mesh, 4000, 1))["chamfer"] < 0.04


def test_the_scaled_latents_are_like_the_noise_they_start_from(vae):
    latents = torch.cat([encoded(vae, load_mesh(path)) for path in MESHES])
    assert latents.std().item() == pytest.approx(1, abs=0.05) and abs(latents.mean().item()) < 0.15


def test_other_points_of_a_surface_give_the_same_shape(vae):
    mesh = load_mesh(ROOT / "resources/meshes/bear.ply")
    one, other = (decoded(vae, encoded(vae, mesh, seed)) for seed in (1, 2))
    assert shape_metrics(sample_surface(one, 4000, 0), sample_surface(other, 4000, 1))["chamfer"] < 0.04


def test_the_weights_are_small_and_named_as_released():
    state = load_file(WEIGHTS)
    assert WEIGHTS.stat().st_size < 5e6
    assert set(state) == {f"vae.{name}" for name in ShapeVAE(DEMO).state_dict()}


def test_damaged_weights_are_named(tmp_path):
    path = tmp_path / "vae.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"vae.safetensors: cannot be read as weights"):
        load_weights({"vae": ShapeVAE(DEMO)}, path)


def test_a_damaged_mesh_is_named(tmp_path):
    path = tmp_path / "bear.ply"
    path.write_bytes(MESHES[0].read_bytes()[:3000])
    with pytest.raises(UserError, match=r"bear.ply: cannot be read as a mesh"):
        load_mesh(path)


def test_the_pretraining_s_moves_keep_distances():
    """Distances of the moved places to the moved shape are those that the training is told."""
    rng = np.random.default_rng(0)
    places = torch.from_numpy(rng.uniform(-1, 1, (2, 300, 3)).astype(np.float32))
    turns, scales = similarities(2, rng)
    moved = places @ turns * scales
    torch.testing.assert_close(torch.cdist(moved, moved), torch.cdist(places, places) * scales, atol=2e-3, rtol=0)
    torch.testing.assert_close(moved[..., 1], places[..., 1] * scales[..., 0])  # upright
