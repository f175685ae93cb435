"""Pictures of a shape: how they are rendered, the released layout they are written in, and what the conditioner is given."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from ablation.errors import UserError
from ablation.systems.hunyuan3d.data.distance import distance
from ablation.systems.hunyuan3d.data.images import conditioner_image, cropped, on_white, padded
from ablation.systems.hunyuan3d.data.layout import (
    read_surface,
    render_files,
    render_folder,
    watertight_file,
)
from ablation.systems.hunyuan3d.data.prepare import prepare_shape, render_shape
from ablation.systems.hunyuan3d.data.render import RADIUS, View, camera_to_world, draw_views, nearest_faces, render
from ablation.systems.hunyuan3d.mesh import Mesh, is_watertight, load_mesh
from ablation.systems.hunyuan3d.surface import decode_grid, extract_surface

MAILBOX = ROOT / "resources/meshes/mailbox.ply"
FRONT = View(azimuth=-np.pi / 2, elevation=0.0, field=np.radians(30))  # from where z is, as the shapes lie


def ball(cells: int = 24) -> Mesh:
    return extract_surface(decode_grid(lambda places: 0.9 - places.norm(dim=-1), cells))


def arrow() -> Mesh:
    """A pyramid that points along x, its square base upright at x = 0."""
    corners = np.array([[1, 0, 0], [0, -0.2, -0.2], [0, -0.2, 0.2], [0, 0.2, 0.2], [0, 0.2, -0.2]], dtype=float)
    return Mesh(corners, np.array([[0, 2, 1], [0, 3, 2], [0, 4, 3], [0, 1, 4], [1, 2, 3], [1, 3, 4]]))


def test_the_silhouette_of_a_ball_is_a_disc_of_the_right_size():
    """The camera sees a sphere of ``RADIUS`` from rim to rim; the ball, of radius 0.5, under a smaller angle."""
    size, picture = 96, render(ball(32), FRONT, 96)
    radius = np.tan(np.arcsin(np.sin(FRONT.field / 2) * 0.5 / RADIUS)) / np.tan(FRONT.field / 2) * size / 2
    alpha = picture[..., 3] / 255
    assert alpha.sum() == pytest.approx(np.pi * radius**2, rel=0.01)
    rows, columns = np.nonzero(alpha)
    assert rows.mean() == pytest.approx((size - 1) / 2, abs=0.1) == pytest.approx(columns.mean(), abs=0.2)


def test_a_ball_is_lit_from_above():
    picture = render(ball(), FRONT, 64)[..., 0].astype(float)
    assert picture[12:24, 32].mean() > picture[40:52, 32].mean() + 20


def tip_side(azimuth: float) -> float:
    """Where the arrow's narrow end is seen: positive to the right of the picture's middle, in pixels."""
    widths = (render(arrow(), View(azimuth, 0.0, np.radians(30)), 64)[..., 3] > 0).sum(axis=0)
    seen = np.flatnonzero(widths)
    return float((seen[0] + seen[-1]) / 2 - (widths * np.arange(64)).sum() / widths.sum())


def test_the_camera_goes_around():
    """x points to the right as seen from z (azimuth -90 degrees), and to the left as seen from behind."""
    assert tip_side(-np.pi / 2) > 1 and tip_side(np.pi / 2) < -1


def test_elevation_looks_down():
    """From above, the top of the ball's poles comes nearer: the lid of a box is seen, not its bottom."""
    camera = camera_to_world(View(0.3, np.radians(50), np.radians(30)))
    assert camera[2, 3] > 0 and np.allclose(camera[:3, :3] @ camera[:3, :3].T, np.eye(3))
    assert np.allclose(camera[:3, 2] * np.linalg.norm(camera[:3, 3]), camera[:3, 3]), "looks at the middle"
    assert np.linalg.det(camera[:3, :3]) == pytest.approx(1) and camera[2, 1] > 0, "upright"


def test_the_nearer_triangle_hides_the_farther():
    near, far = np.array([[-1, -1, -2], [1, -1, -2], [0, 1, -2.0]]), np.array([[-9, -9, -5], [9, -9, -5], [0, 9, -5.0]])
    for order in ([near, far], [far, near]):
        seen = nearest_faces(np.stack(order), np.radians(60), 32)
        assert np.array_equal(order[seen[16, 16]], near) and set(np.unique(seen)) == {0, 1}


def test_triangles_in_many_parts_give_the_same_picture(monkeypatch):
    whole = render(load_mesh(MAILBOX), FRONT, 48)
    monkeypatch.setattr("ablation.systems.hunyuan3d.data.render.PAIRS", 500)
    assert np.array_equal(render(load_mesh(MAILBOX), FRONT, 48), whole)


def test_views_follow_from_the_seed_and_go_all_around():
    first, again, other = (draw_views(8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other
    gaps = np.diff(sorted(view.azimuth for view in first))
    np.testing.assert_allclose(gaps, np.pi / 4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    mesh = load_mesh(MAILBOX)
    prepare_shape(root, "mailbox", mesh, seed=0, points=2048, distances=512)
    render_shape(root, "mailbox", mesh, seed=0, views=3, size=64)
    return root


def test_the_layout_is_the_release_s(prepared):
    names = {str(path.relative_to(prepared / "mailbox")) for path in prepared.rglob("*.*")}
    geometry = {f"geo_data/mailbox_{end}" for end in ("surface.npz", "sdf.npz", "watertight.obj")}
    pictures = {f"render_cond/{name}" for name in ("000.png", "001.png", "002.png", "mesh.ply", "transforms.json")}
    assert names == geometry | pictures
    assert [path.name for path in render_files(prepared, "mailbox")] == ["000.png", "001.png", "002.png"]


def test_a_mesh_that_is_inside_out_is_lit_as_well(prepared, tmp_path):
    mesh = load_mesh(MAILBOX)
    render_shape(tmp_path, "mailbox", mesh._replace(faces=mesh.faces[:, ::-1]), seed=0, views=3, size=64)
    for path, again in zip(render_files(prepared, "mailbox"), render_files(tmp_path, "mailbox"), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(again)))


def test_the_watertight_mesh_is_the_one_of_the_points(prepared):
    mesh = load_mesh(watertight_file(prepared, "mailbox"))
    points = read_surface(prepared / "mailbox/geo_data/mailbox_surface.npz").random[:200, :3]
    assert is_watertight(mesh) and distance(mesh, points).max() < 2e-3  # points are stored in fp16


def test_the_cameras_can_be_used_as_written(prepared):
    """Rendered again from transforms.json and mesh.ply alone, the pictures are the same."""
    folder = render_folder(prepared, "mailbox")
    cameras, mesh = json.loads((folder / "transforms.json").read_text()), load_mesh(folder / "mesh.ply")
    given = load_mesh(MAILBOX).vertices @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # z up
    moved = given * cameras["scale"] + cameras["offset"]
    np.testing.assert_allclose([moved.min(axis=0), moved.max(axis=0)], np.array([-1, 1])[:, None] * np.abs(moved).max(axis=0))
    assert np.ptp(moved, axis=0).max() == pytest.approx(1)
    for frame in cameras["frames"]:
        view = View(frame["azimuth"], frame["elevation"], frame["camera_angle_x"])
        assert frame["cam_dis"] == pytest.approx(np.linalg.norm(np.array(frame["transform_matrix"])[:3, 3]))
        again = render(mesh, view, 64).astype(int)
        assert (
            np.abs(again - np.asarray(Image.open(folder / frame["file_path"]))).max() <= 30
        )  # of fp32 places: a sample or two


def test_a_shape_s_name_stays_in_its_folder(prepared):
    for name in ("..", "a/b", "", "/etc"):
        with pytest.raises(UserError, match="cannot be the name of a shape"):
            render_folder(prepared, name)
    with pytest.raises(UserError, match="holds no pictures"):
        render_files(prepared, "elsewhere")


def test_the_conditioner_s_picture(prepared):
    path = render_files(prepared, "mailbox")[0]
    image = conditioner_image(path, 56)
    assert image.shape == (3, 56, 56) and image.dtype == torch.float32
    assert image.min() >= -1 and image.max() <= 1 and (image[:, 0] == 1).all(), "white around"
    shape = (image[0] < 0.9).nonzero()
    reach = (shape.max(dim=0).values - shape.min(dim=0).values).max()
    assert 0.65 * 56 < reach < 56 / 1.15, "as large as it goes"


def test_crop_and_padding_are_the_release_s():
    rgba = np.zeros((60, 80, 4), dtype=np.uint8)
    rgba[20:30, 40:70] = [200, 100, 0, 255]
    rgba[20, 40, 3] = 1  # hardly covered is covered
    crop = cropped(rgba)
    assert crop.shape == (5 + 10 + 4, 5 + 30 + 4, 4)
    white = on_white(crop)
    assert (white[0, 0] == 255).all() and (white[10, 10] == [200, 100, 0]).all() and (white[5, 5] >= 254).all()
    square = padded(white)
    assert square.shape == (44, 44, 3)  # 39 x 1.15
    assert (square[12:31, 2:41] == white).all() and (square[:12] == 255).all()
    rgba[:2, :3] = 255
    assert cropped(rgba).shape == (34, 74, 4), "no rim beyond the picture"


def test_bad_pictures_are_named(tmp_path):
    path = tmp_path / "000.png"
    with pytest.raises(UserError, match=r"000.png: no such picture"):
        conditioner_image(path, 28)
    Image.fromarray(np.zeros((9, 9, 4), dtype=np.uint8)).save(path)
    with pytest.raises(UserError, match=r"000.png: shows nothing"):
        conditioner_image(path, 28)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 4), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"000.png: cannot be read"):
        conditioner_image(path, 28)
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(path)
    with pytest.raises(UserError, match="is of mode RGB; it must be RGBA"):
        conditioner_image(path, 28)
    Image.new("RGBA", (5000, 2)).save(path)
    with pytest.raises(UserError, match="5000 x 2 pixels large"):
        conditioner_image(path, 28)
