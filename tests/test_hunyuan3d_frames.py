"""Shapes from outside: whatever their box, scale and the side on which distances are positive, the metrics are the same."""

import logging
import shutil
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import shapes
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.errors import UserError
from ablation.systems.hunyuan3d import judge
from ablation.systems.hunyuan3d.data.distance import inside, signed_distance
from ablation.systems.hunyuan3d.data.frame import HALF, frame_of
from ablation.systems.hunyuan3d.data.layout import (
    Distances,
    SurfacePoints,
    geometry_files,
    read_distances,
    read_surface,
    write_shape,
)
from ablation.systems.hunyuan3d.data.prepare import normalised, prepare_shape, render_shape
from ablation.systems.hunyuan3d.data.shape import Shape
from ablation.systems.hunyuan3d.data.sources import take_released
from ablation.systems.hunyuan3d.mesh import Mesh, sample_surface
from ablation.systems.hunyuan3d.metrics import shape_metrics, volume_iou

torch.set_num_threads(1)
POINTS = 4000


def pear() -> Mesh:
    """A closed shape without symmetries, its longest side along y."""
    ball = trimesh.creation.icosphere(subdivisions=4)
    x, y, z = ball.vertices.T
    return normalised(Mesh(np.stack([x * (1 - 0.4 * y), 1.3 * y + 0.2 * x**2, 0.7 * z + 0.1 * y], axis=1), ball.faces))


@cache
def made() -> tuple[SurfacePoints, dict[str, Distances]]:
    """Its data in our frame, as the workflow makes it, in fp32."""
    mesh, rng = pear(), np.random.default_rng(0)
    even = sample_surface(mesh, POINTS, 0)
    near = even.points + rng.choice((0.005, 0.05), (POINTS, 1)) * rng.normal(size=(POINTS, 3))
    places = {"vol": rng.uniform(-1.05, 1.05, (POINTS, 3)), "random_near": near, "sharp_near": np.zeros((0, 3))}
    rows = np.concatenate(even, axis=1)
    return SurfacePoints(rows, rows[:0]), {name: Distances(p, signed_distance(mesh, p)) for name, p in places.items()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with the pictures of the shape `pear`."""
    root = tmp_path_factory.mktemp("pictures")
    render_shape(root, "pear", pear(), 0, views=2, size=24)
    return root


@pytest.fixture(scope="module")
def taken(tmp_path_factory, pictures):
    """Puts data into the release's layout and takes it from there: the prepared shape."""

    def take(surface, distances) -> Shape:
        root, out = tmp_path_factory.mktemp("in") / "data", tmp_path_factory.mktemp("out") / "data"
        shutil.copytree(pictures, root)
        write_shape(root, "pear", surface, distances)
        out.mkdir()
        take_released(root, "pear", out)
        take.root = root
        return Shape(out, 100, 0)

    return take


def elsewhere(half: float, centre, sign: int, of=None) -> tuple[SurfacePoints, dict[str, Distances]]:
    """The data in another frame."""
    surface, distances = of or made()
    scale = half / HALF

    def moved(places):
        return places * scale + np.asarray(centre)

    rows = np.concatenate([moved(surface.random[:, :3]), surface.random[:, 3:]], axis=1)
    known = {name: Distances(moved(places), values * scale * sign) for name, (places, values) in distances.items()}
    return SurfacePoints(rows, rows[:0]), known


def metrics(shape: Shape) -> dict[str, float]:
    """Of a perfect answer: the true mesh, in our frame."""
    mesh, volume = pear(), shape.volume()
    found = shape_metrics(sample_surface(mesh, POINTS, 0), judge._surface(shape), 0.02)
    return {**found, "volume_iou": volume_iou(inside(mesh, volume.points), volume.values < 0)}


def test_data_in_our_frame_is_taken_as_it_is(taken):
    shape = taken(*made())
    for ours, theirs in zip((shape.surface_file, shape.distances_file), geometry_files(taken.root, "pear"), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


@settings(max_examples=15, deadline=None)
@given(
    half=st.floats(0.05, 20),
    centre=st.tuples(*[st.floats(-1, 1)] * 3),
    sign=st.sampled_from([1, -1]),
)
def test_metrics_are_the_same_whatever_sign_box_and_scale(taken, half, centre, sign):
    """To what fp16 leaves: places far from the origin are stored to a thousandth of the shape."""
    shape = taken(*elsewhere(half, np.multiply(centre, half), sign))
    found = metrics(shape)
    assert found["volume_iou"] > 0.98 and found["fscore"] > 0.999
    assert found["chamfer"] < 2e-3 and found["normal_consistency"] > 0.98
    low, high = (getattr(shape.surface().random[:, :3], end)(axis=0) for end in ("min", "max"))
    assert np.abs(low + high).max() < 4e-3 and (high - low).max() == pytest.approx(2 * HALF, abs=4e-3)


def test_the_corner_of_the_unit_box_with_positive_inside_is_what_the_release_s_tool_writes(taken, caplog):
    """normalize_to_unit_box, 1 % less than 1 from the origin; label = -igl.signed_distance."""
    surface, _ = made()
    low = surface.random[:, :3].min(axis=0)
    half = 0.5 / 1.01
    with caplog.at_level(logging.WARNING):
        shape = taken(*elsewhere(half, -low * half / HALF, -1))
    assert metrics(shape)["volume_iou"] > 0.99
    assert "longest side 0.989" in caplog.text and "positive inside" in caplog.text


@cache
def shell(depth: float = 1 / 64) -> tuple[SurfacePoints, dict[str, Distances]]:
    """What the release's tool makes of a ball: the places within ``depth`` of its surface : two skins."""
    radius, ball, rng = HALF - depth, trimesh.creation.icosphere(subdivisions=5), np.random.default_rng(1)
    skins = [sample_surface(Mesh(ball.vertices * (radius + side * depth), ball.faces), POINTS, 0) for side in (1, -1)]
    rows = np.concatenate(
        [np.concatenate([points, side * normals], axis=1) for side, (points, normals) in zip((1, -1), skins, strict=True)]
    )
    places = {
        "vol": rng.uniform(-1.05, 1.05, (POINTS, 3)),
        "random_near": rows[::2, :3] + 0.01 * rng.normal(size=(POINTS, 3)),
        "sharp_near": np.zeros((0, 3)),
    }
    known = {name: Distances(p, np.abs(np.linalg.norm(p, axis=1) - radius) - depth) for name, p in places.items()}
    return SurfacePoints(rows, rows[:0]), known


@pytest.mark.parametrize("sign", [1, -1])
def test_distances_of_a_shell_have_no_volume(taken, caplog, sign):
    """Read by the wrong sign, "everything is inside" got an IoU of 0.999 and a perfect answer 0.000."""
    with caplog.at_level(logging.WARNING):
        shape = taken(*elsewhere(0.5, (0.5, 0.5, 0.5), sign, of=shell()))
    assert shape.volume() is None and "no volume IoU" in caplog.text
    known = read_distances(shape.distances_file)["vol"]
    assert (known.values[np.abs(known.points).max(axis=1) > 1] > 0).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_distances_without_a_sign_have_no_volume(taken, sign):
    """The release's small training set has labels that are negative or zero, inside and outside alike."""
    surface, distances = made()
    unsigned = {name: Distances(places, sign * np.abs(values)) for name, (places, values) in distances.items()}
    assert taken(surface, unsigned).volume() is None


def test_what_has_no_volume_has_no_iou_and_the_others_have(taken):
    network = shapes.networks()
    hollow, solid = taken(*elsewhere(0.5, (0.5, 0.5, 0.5), -1, of=shell())), taken(*made())
    tokens = torch.randn(1, *(shapes.NETWORKS["autoencoder"][name] for name in ("latents", "dim")))
    answer = SimpleNamespace(mesh=pear(), logits=(-1.0, 1.0), tokens=tokens, diagnosis=None)
    nothing = SimpleNamespace(mesh=None, logits=None, tokens=tokens, diagnosis="empty")
    rows = []
    for shape in (hollow, solid):
        for made_one in (answer, nothing):
            row = judge.judged(network, made_one, shape, 0.02)
            assert ("volume_iou" in row) == (shape is solid)
            rows.append({"item": "hollow" if shape is hollow else "solid", "view": "000", **row})
    assert "volume_iou" in judge.mean_of(rows) and "volume_iou" not in judge.mean_of(rows[:2])
    how = SimpleNamespace(steps=2, guidance=1.0, tau=0.02, resolution=8)
    assert "none for hollow: the distances describe a shell" in judge._notes(rows, how)["volume"]


def turned(surface: SurfacePoints) -> SurfacePoints:
    rows = surface.random.copy()
    rows[:, 3:] *= -1
    return SurfacePoints(rows, rows[:0])


def other(distances: dict[str, Distances]) -> dict[str, Distances]:
    """Of another shape at the same places: a ball."""
    return {name: Distances(places, np.linalg.norm(places, axis=1) - 0.4) for name, (places, _) in distances.items()}


CONTRADICTIONS = {
    "normals inwards": (lambda s, d: (turned(s), d), "on which side its distances are positive"),
    "distances in half the unit": (
        lambda s, d: (s, {n: Distances(p, v / 2) for n, (p, v) in d.items()}), "0.5 times those to the points",
    ),
    "distances of another shape": (lambda s, d: (s, other(d)), "times those|on which side"),
    "signs by chance": (
        lambda s, d: (s, {n: Distances(p, np.abs(v) * np.resize([1, -1, 1], len(v))) for n, (p, v) in d.items()}),
        "on which side its distances are positive",
    ),
    "no surface": (lambda s, d: (SurfacePoints(s.random[:0], s.sharp), d), "no points of the surface"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "why"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_with_the_file(tmp_path, change, why):
    with pytest.raises(UserError, match=why) as refused:
        frame_of(*change(*made()), tmp_path / "pear_sdf.npz")
    assert str(refused.value).startswith(f"{tmp_path}/pear_sdf.npz")


def test_what_the_workflow_makes_itself_is_in_its_own_frame(tmp_path):
    """Also where few points do not reach the bounds of the mesh."""
    for name, mesh in {"ball": trimesh.creation.icosphere(3), "brick": trimesh.creation.box((2, 1.2, 0.8))}.items():
        prepare_shape(tmp_path, name, Mesh(mesh.vertices, mesh.faces), 0, points=256, distances=1024)
        surface, distances = (
            read(path) for read, path in zip((read_surface, read_distances), geometry_files(tmp_path, name), strict=True)
        )
        assert frame_of(surface, distances, tmp_path).sign == 1
