"""Hunyuan3D's data of a shape: the released layout, and how a mesh becomes it."""

import numpy as np
import pytest
import torch

from ablation.errors import UserError
from ablation.systems.hunyuan3d.data import distance
from ablation.systems.hunyuan3d.data.distance import inside, signed_distance
from ablation.systems.hunyuan3d.data.frame import HALF
from ablation.systems.hunyuan3d.data.layout import SurfacePoints, geometry_files, pick_points, read_distances, read_surface
from ablation.systems.hunyuan3d.data.prepare import normalised, prepare_shape
from ablation.systems.hunyuan3d.data.sharp import sample_sharp_edges
from ablation.systems.hunyuan3d.mesh import Mesh, signed_volume
from ablation.systems.hunyuan3d.metrics import volume_iou
from ablation.systems.hunyuan3d.surface import BOX, decode_grid, extract_surface

SIDES = np.array([1.0, 0.6, 0.4])  # half of the box's


def box(sides: np.ndarray = SIDES) -> Mesh:
    """A box about the origin: each face two triangles, their normals outwards."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * sides
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    return Mesh(corners, np.array([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)]))


def box_distance(points: np.ndarray, sides: np.ndarray = SIDES) -> np.ndarray:
    """Signed distance to the box, in closed form."""
    beyond = np.abs(points) - sides
    return np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)


@pytest.fixture
def places() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.2, 1.2, (500, 3))


def test_distances_to_a_box_are_exact(places, monkeypatch):
    monkeypatch.setattr(distance, "AT_ONCE", 100)  # some places a time
    np.testing.assert_allclose(signed_distance(box(), places), box_distance(places), atol=1e-12)


def test_distances_to_a_sphere(places):
    mesh = extract_surface(decode_grid(lambda where: 0.5 - where.norm(dim=-1), 16))
    flatness = (2 * BOX / 16) ** 2 / (2 * 0.5)  # a triangle about a cell long lies that far within a sphere of radius 0.5
    np.testing.assert_allclose(signed_distance(mesh, places), np.linalg.norm(places, axis=1) - 0.5, atol=flatness)


def test_a_triangle_without_area_does_no_harm(places):
    mesh = box()
    more = mesh._replace(faces=np.concatenate([mesh.faces, [[0, 0, 1], [2, 2, 2]]]))
    np.testing.assert_allclose(signed_distance(more, places), signed_distance(mesh, places), atol=1e-12)


def test_inside_out_is_inside_as_well(places):
    turned = box()._replace(faces=box().faces[:, ::-1])
    assert signed_volume(box()) == pytest.approx(8 * 0.24) == -signed_volume(turned)
    assert np.array_equal(inside(turned, places), box_distance(places) < 0)


def test_the_overlap_of_two_meshes():
    """Boxes of 8 * 0.24 and 8 * 0.12, one within the other."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1.19, 1.19, 24)] * 3), axis=-1).reshape(-1, 3)
    half = box(SIDES * [0.5, 1, 1])
    assert volume_iou(inside(box(), grid), inside(half, grid)) == pytest.approx(0.5, abs=0.05)


def test_sharp_edges_of_a_box():
    samples = sample_sharp_edges(box(), 300, np.random.default_rng(0))
    at_the_rim = np.isclose(np.abs(samples.points), SIDES)
    assert (at_the_rim.sum(axis=1) >= 2).all(), "a diagonal of a face is not sharp"
    outwards = np.where(at_the_rim, np.sign(samples.points), 0) / np.sqrt(2)
    np.testing.assert_allclose(samples.normals, outwards, atol=1e-12)


def test_a_shape_is_prepared_and_read_back(tmp_path):
    prepare_shape(tmp_path, "box", box(3 * SIDES), seed=0, points=400, distances=300)
    surface_path, distances_path = geometry_files(tmp_path, "box")
    assert surface_path == tmp_path / "box/geo_data/box_surface.npz"
    surface, known = read_surface(surface_path), read_distances(distances_path)
    sides = SIDES * HALF
    assert surface.random.shape == surface.sharp.shape == (400, 6) and surface.random.dtype == np.float32
    assert np.abs(box_distance(surface.random[:, :3], sides)).max() < 1e-3  # of fp16
    for region, (points, values) in known.items():
        assert points.shape == (300, 3), region
        np.testing.assert_allclose(values, box_distance(points, sides), atol=1e-3)
        assert values.min() < 0 < values.max()
    assert np.load(distances_path)["vol_label"].dtype == np.float16


def test_preparing_follows_from_the_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare_shape(tmp_path, name, box(), seed, points=20, distances=20)
    first, again, other = (read_surface(geometry_files(tmp_path, uid)[0]).random for uid in "abc")
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_picked_points_are_the_encoders_input(tmp_path):
    prepare_shape(tmp_path, "box", box(), seed=0, points=50, distances=10)
    surface = read_surface(geometry_files(tmp_path, "box")[0])
    picked = pick_points(surface, 40, 10, np.random.default_rng(0))
    assert picked.shape == (50, 7) and picked.dtype == np.float32
    assert (picked[:40, 6] == 0).all() and (picked[40:, 6] == 1).all() and len(np.unique(picked[:40], axis=0)) == 40
    torch.testing.assert_close(torch.from_numpy(picked[:, 3:6]).norm(dim=1), torch.ones(50))
    with pytest.raises(UserError, match="51 points of the sharp edges are wanted, the shape has 50"):
        pick_points(surface, 1, 51, np.random.default_rng(0))


def test_a_round_shape_has_no_sharp_points(tmp_path):
    mesh = extract_surface(decode_grid(lambda where: 0.5 - where.norm(dim=-1), 16))
    prepare_shape(tmp_path, "ball", mesh, seed=0, points=10, distances=10)
    surface_path, distances_path = geometry_files(tmp_path, "ball")
    assert read_surface(surface_path).sharp.shape == (0, 6) and len(read_distances(distances_path)["sharp_near"].values) == 0


def test_the_scale_keeps_proportions():
    moved = Mesh(box().vertices * 7 + 3, box().faces)
    np.testing.assert_allclose(normalised(moved).vertices, box(SIDES * HALF).vertices, atol=1e-12)


def test_bad_data_is_named(tmp_path):
    with pytest.raises(UserError, match="not watertight"):
        prepare_shape(tmp_path, "open", box()._replace(faces=box().faces[1:]), seed=0)
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match="no such file"):
        read_surface(path)
    np.savez(path, random_surface=np.zeros((4, 6)))
    with pytest.raises(UserError, match="holds no sharp_surface"):
        read_surface(path)
    np.savez(path, random_surface=np.zeros((4, 6)), sharp_surface=np.zeros((4, 3)))
    with pytest.raises(UserError, match=r"sharp_surface has the shape \(4, 3\)"):
        read_surface(path)
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(UserError, match="truncated"):
        read_surface(path)
    assert pick_points(SurfacePoints(np.ones((3, 6)), np.ones((0, 6))), 3, 0, np.random.default_rng(0)).shape == (3, 7)
