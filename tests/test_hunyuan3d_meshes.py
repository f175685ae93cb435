"""Hunyuan3D's way from a field to a mesh, and the numbers that compare shapes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablation.errors import UserError
from ablation.systems.hunyuan3d.mesh import Mesh, Samples, is_watertight, load_mesh, sample_surface, save_glb, signed_volume
from ablation.systems.hunyuan3d.metrics import f_score, nearest, normal_consistency, shape_metrics, volume_iou
from ablation.systems.hunyuan3d.settings import Autoencoder
from ablation.systems.hunyuan3d.surface import BOX, EmptySurface, decode_grid, extract_surface, places
from ablation.systems.hunyuan3d.vae.vae import ShapeVAE

RADIUS = 0.7
CENTRE = torch.tensor([0.05, -0.1, 0.2])


def ball(where: torch.Tensor) -> torch.Tensor:
    """A field that is positive inside a ball, with curvature off the surface."""
    return RADIUS**2 - (where - CENTRE).square().sum(dim=-1)


def sphere(resolution: int = 32) -> Mesh:
    return extract_surface(decode_grid(ball, resolution, at_once=5000))


def square(count: int, height: float = 0.0) -> Samples:
    """A regular ``count`` x ``count`` sample of the unit square at ``height``."""
    along = np.linspace(0, 1, count)
    x, y = (a.ravel() for a in np.meshgrid(along, along))
    return Samples(np.stack([x, y, np.full_like(x, height)], axis=1), np.tile([0.0, 0.0, 1.0], (count**2, 1)))


def random_samples(seed: int, count: int = 200) -> Samples:
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(count, 3))
    return Samples(rng.normal(size=(count, 3)), normals / np.linalg.norm(normals, axis=1, keepdims=True))


# the grid and the surface


def test_the_grid_spans_the_box_with_z_fastest():
    corners = places(torch.arange(27), 2)
    assert torch.equal(corners[0], torch.full((3,), -BOX)) and torch.equal(corners[-1], torch.full((3,), BOX))
    assert torch.equal(corners[1], torch.tensor([-BOX, -BOX, 0.0])) and torch.equal(corners[9], torch.tensor([0.0, -BOX, -BOX]))


@pytest.mark.parametrize("resolution", [16, 33])
def test_a_sphere_is_found(resolution):
    mesh, cell = sphere(resolution), 2 * BOX / resolution
    radii = np.linalg.norm(mesh.vertices - CENTRE.numpy(), axis=1)
    assert np.abs(radii - RADIUS).max() < cell / 4
    assert is_watertight(mesh)
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=(cell / RADIUS) ** 2)  # positive: not inside out


def test_chunks_do_not_matter():
    assert np.array_equal(decode_grid(ball, 8, at_once=7), decode_grid(ball, 8))


def test_the_level_is_where_it_is_asked_for():
    mesh = extract_surface(decode_grid(ball, 32), level=RADIUS**2 - 0.25)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - CENTRE.numpy(), axis=1), 0.5, atol=0.01)


@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_a_field_of_one_sign_is_an_empty_surface(shift):
    values = decode_grid(lambda where: where[:, 0] + shift, 8)
    low, high = ("0.99", "3.01") if shift > 0 else ("-3.01", "-0.99")
    with pytest.raises(EmptySurface, match=rf"no surface at level 0: the logits range from {low} to {high}, all on one side"):
        extract_surface(values)
    assert issubclass(EmptySurface, UserError)


def test_a_constant_field_at_the_level_is_an_empty_surface():
    with pytest.raises(EmptySurface, match="from 0 to 0"):
        extract_surface(np.zeros((5, 5, 5), dtype=np.float32))


@pytest.mark.parametrize(("value", "nans"), [(np.nan, 2), (np.inf, 0)])
def test_what_is_not_finite_is_named(value, nans):
    values = decode_grid(ball, 8)
    values[0, 0, :2] = value
    with pytest.raises(EmptySurface, match=rf"2 of 729 logits are not finite \({nans} NaN\)"):
        extract_surface(values)


def test_the_autoencoder_is_such_a_field():
    torch.manual_seed(0)
    vae = ShapeVAE(Autoencoder(latents=8, channels=4, dim=16, heads=2, encoder_depth=1, decoder_depth=1))
    tokens = vae.decode(torch.randn(1, 8, 4))
    values = decode_grid(lambda where: vae.field(where[None], tokens)[0], 6)
    assert values.shape == (7, 7, 7) and len(extract_surface(values, level=float(np.median(values))).faces)


# meshes


def test_a_glb_is_read_back(tmp_path):
    mesh, path = sphere(), tmp_path / "samples" / "shape.glb"
    save_glb(path, mesh)
    assert path.read_bytes()[:4] == b"glTF"
    again = load_mesh(path)
    assert is_watertight(again) and signed_volume(again) == pytest.approx(signed_volume(mesh), rel=1e-5)


def test_what_is_no_mesh_is_refused(tmp_path):
    with pytest.raises(UserError, match="no mesh here"):
        load_mesh(tmp_path / "absent.glb")
    path = tmp_path / "broken.glb"
    path.write_bytes(b"glTF but no more")
    with pytest.raises(UserError, match=r"broken.glb: cannot be read"):
        load_mesh(path)


def test_a_hole_is_seen():
    mesh = sphere(12)
    assert is_watertight(mesh) and not is_watertight(Mesh(mesh.vertices, mesh.faces[1:]))


def test_samples_are_even_by_area():
    """A big and a small triangle, of 9 : 1 in area, and one of none; within each, the centroid."""
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 5], [0, 1, 5], [1, 0, 5]], dtype=np.float64)
    mesh = Mesh(vertices, np.array([[0, 1, 2], [3, 4, 5], [0, 0, 1]]))
    samples = sample_surface(mesh, 20_000, seed=3)
    big = samples.points[:, 2] == 0
    assert big.mean() == pytest.approx(0.9, abs=0.01)
    np.testing.assert_allclose(samples.points[big].mean(axis=0), [1, 1, 0], atol=0.03)
    assert (samples.normals[big] == [0, 0, 1]).all() and (samples.normals[~big] == [0, 0, -1]).all()
    assert (samples.points[big, :2].sum(axis=1) <= 3 + 1e-12).all() and (samples.points >= 0).all()


def test_samples_lie_on_the_sphere_and_look_outwards():
    samples = sample_surface(sphere(), 2000, seed=0)
    outwards = samples.points - CENTRE.numpy()
    np.testing.assert_allclose(np.linalg.norm(outwards, axis=1), RADIUS, atol=0.01)
    assert ((samples.normals * outwards).sum(axis=1) > 0.97 * RADIUS).all()


def test_samples_follow_from_the_seed():
    mesh = sphere(8)
    first, again, other = (sample_surface(mesh, 10, seed).points for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_mesh_without_area_is_refused():
    with pytest.raises(UserError, match="no surface to sample"):
        sample_surface(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), 5, seed=0)


# metrics


@given(st.integers(0, 2**32 - 1))
def test_a_shape_equals_itself(seed):
    samples = random_samples(seed)
    metrics = shape_metrics(samples, samples)
    assert metrics["chamfer"] == 0 and metrics["fscore"] == 1 and metrics["normal_consistency"] == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3))
def test_the_metrics_are_symmetric_and_bounded(seed, tau):
    a, b = random_samples(seed), random_samples(seed + 1, count=150)
    there, back = shape_metrics(a, b, tau), shape_metrics(b, a, tau)
    assert there == pytest.approx(back) and there["chamfer"] > 0
    assert 0 <= there["fscore"] <= 1 and 0 <= there["normal_consistency"] <= 1


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_scale_and_place(seed, scale):
    """Distances scale with the shapes and care for no common shift."""
    a, b = random_samples(seed), random_samples(seed + 1)
    moved = [Samples(scale * s.points + [1.0, 2.0, -3.0], s.normals) for s in (a, b)]
    plain, other = shape_metrics(a, b, tau=0.5), shape_metrics(*moved, tau=0.5 * scale)
    assert other["chamfer"] == pytest.approx(scale * plain["chamfer"])
    assert other["normal_consistency"] == pytest.approx(plain["normal_consistency"])


@given(st.floats(0.001, 0.5))
def test_a_plane_moved_by_d(d):
    metrics = shape_metrics(square(30, d), square(30), tau=1.001 * d)
    assert metrics["chamfer"] == pytest.approx(d) and metrics["fscore"] == 1 and metrics["normal_consistency"] == 1
    assert shape_metrics(square(30, d), square(30), tau=0.999 * d)["fscore"] == 0


def test_the_f_score_is_a_harmonic_mean():
    """All that was predicted is true (precision 1), but it is only a quarter of the truth (recall 1/4)."""
    truth = square(40).points
    part = truth[(truth[:, 0] < 0.5) & (truth[:, 1] < 0.5)]
    assert f_score(nearest(part, truth), nearest(truth, part), tau=1e-9) == pytest.approx(2 * 0.25 / 1.25)


def test_normals_may_be_flipped_but_not_turned():
    flat = square(10)
    there = nearest(flat.points, flat.points)
    assert normal_consistency(flat.normals, -flat.normals, there, there) == 1
    turned = np.tile([np.sin(0.3), 0.0, np.cos(0.3)], (100, 1))
    assert normal_consistency(flat.normals, turned, there, there) == pytest.approx(np.cos(0.3))


@given(st.integers(0, 20))
def test_the_overlap_of_shifted_boxes(shift):
    """Boxes of 20 cells, shifted by s: (20 - s) / (20 + s)."""
    first, second = np.zeros((2, 50, 30, 30), dtype=bool)
    first[3:23, 3:23, 3:23] = second[3 + shift : 23 + shift, 3:23, 3:23] = True
    assert volume_iou(first, second) == volume_iou(second, first) == pytest.approx((20 - shift) / (20 + shift))


def test_what_cannot_be_compared_is_refused():
    nothing = np.zeros((3, 3, 3), dtype=bool)
    with pytest.raises(UserError, match="no volume"):
        volume_iou(nothing, nothing)
    with pytest.raises(UserError, match="different places"):
        volume_iou(nothing, nothing[:2])
    with pytest.raises(UserError, match="a cloud of 0 points"):
        nearest(np.zeros((0, 3)), np.zeros((1, 3)))
    with pytest.raises(UserError, match="finite"):
        nearest(np.zeros((1, 3)), np.full((1, 3), np.nan))


def test_a_coarse_sphere_is_near_a_fine_one():
    coarse, fine = (sample_surface(sphere(resolution), 4000, seed=0) for resolution in (12, 40))
    metrics = shape_metrics(coarse, fine, tau=0.05)
    assert metrics["chamfer"] < 0.04 and metrics["fscore"] > 0.95 and metrics["normal_consistency"] > 0.97
