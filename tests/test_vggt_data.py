"""ETH3D-style scenes become arrays whose geometry is exact, and broken ones an error that names the file."""

import shutil

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scenes import cameras, write_scene

from ablation.errors import UserError
from ablation.systems.base import Draw
from ablation.systems.vggt.data.augment import Box, jitter, mirrored, random_box
from ablation.systems.vggt.data.colmap import read_model
from ablation.systems.vggt.data.dataset import SequenceDataset, move_intrinsics, pick, resize_image
from ablation.systems.vggt.data.densify import densify, rasterise
from ablation.systems.vggt.data.eth3d import missing_scenes, read_scene
from ablation.systems.vggt.data.making import prepare_scene
from ablation.systems.vggt.data.regions import DETAIL, PLANAR, regions_of
from ablation.systems.vggt.data.scene import Scene
from ablation.systems.vggt.data.sequences import apart, overlapping
from ablation.systems.vggt.data.view import Pinhole, fit_camera, pinhole_of, prepare_view
from ablation.systems.vggt.geometry import unproject
from ablation.systems.vggt.settings import Augment, Data, Split

SIZE, RANGE = (42, 56), (0.1, 100.0)
HOW = {"size": SIZE, "fit": "crop", "depth_range": RANGE, "dense": True}


@pytest.fixture
def scene(tmp_path):
    """A scene of its own, to be broken."""
    write_scene(tmp_path, "hall", seed=1)
    return tmp_path


@pytest.fixture(scope="module")
def prepared(scene_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    for name in ("hall", "yard"):
        prepare_scene(scene_root, name, HOW, out / name)
    return [out / "hall", out / "yard"]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_views_have_their_cameras_points_and_laser(scene_root):
    views = read_scene(scene_root, "hall")
    assert [view.name for view in views] == [f"DSC_{i:04d}.JPG" for i in range(1, 7)]
    assert {view.camera.model_name for view in views} == {"THIN_PRISM_FISHEYE", "PINHOLE"}
    assert all(len(view.points) > 20 and view.depth is not None for view in views)


def test_binary_models_read_the_same(tmp_path, scene_root):
    write_scene(tmp_path, "hall", seed=1, binary=True)
    for a, b in zip(read_scene(tmp_path, "hall"), read_scene(scene_root, "hall"), strict=True):
        np.testing.assert_allclose(a.cam_from_world, b.cam_from_world, atol=1e-12)
        np.testing.assert_allclose(np.sort(a.points, axis=0), np.sort(b.points, axis=0), atol=1e-9)


def lines_of(path):
    return path.read_text().splitlines()


@pytest.mark.parametrize("cut", ["empty", "ragged", "one number", "missing last"])
def test_damaged_observation_lines_lose_nothing(scene, cut):
    """What an image sees is in the tracks too, so the second line of an image may be anything."""
    path = scene / "hall/dslr_calibration_jpg/images.txt"
    before = {view.name: len(view.points) for view in read_scene(scene, "hall")}
    lines = lines_of(path)
    body = [i for i, line in enumerate(lines) if not line.startswith("#")]
    observations = body[1::2]
    if cut == "missing last":
        lines.pop(observations[-1])
    else:
        keep = {"empty": 0, "ragged": -1, "one number": 1}[cut]
        for i in observations[::2]:
            lines[i] = " ".join(lines[i].split()[:keep])
    path.write_text("\n".join(lines) + "\n")
    assert {view.name: len(view.points) for view in read_scene(scene, "hall")} == before


def test_models_without_tracks_use_every_point(scene):
    folder = scene / "hall/dslr_calibration_jpg"
    lines = lines_of(folder / "images.txt")
    body = [i for i, line in enumerate(lines) if not line.startswith("#")]
    for i in body[1::2]:
        lines[i] = ""
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    points = [" ".join(line.split()[:8]) for line in lines_of(folder / "points3D.txt") if not line.startswith("#")]
    (folder / "points3D.txt").write_text("\n".join(points) + "\n")
    assert {len(view.points) for view in read_scene(scene, "hall")} == {len(points)}


def truncate(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


MODEL, PHOTO = "dslr_calibration_jpg", "images/dslr_images/DSC_0002.JPG"


def replaced(name, text):
    """A damage: the model's file holds ``text`` instead."""
    return lambda folder: (folder / MODEL / name).write_text(text)


def cut_at_a_line(folder):
    path = folder / MODEL / "points3D.txt"
    path.write_text("\n".join(lines_of(path)[:9]))


def small_photo(folder):
    Image.new("RGB", (10, 10)).save(folder / PHOTO)


BREAKS = {
    "camera cut short": (replaced("cameras.txt", "1 PINHOLE 96 64 70 70\n"), "cameras.txt:1"),
    "unknown camera model": (replaced("cameras.txt", "1 HOLGA 96 64 70 70 1 1\n"), "HOLGA"),
    "camera missing": (replaced("cameras.txt", "9 PINHOLE 96 64 70 70 48 32\n"), "not in cameras.txt"),
    "images truncated": (lambda f: truncate(f / MODEL / "images.txt", 0.3), "points3D.txt"),
    "points cut inside a track": (replaced("points3D.txt", "1 0 0 1 9 9 9 0.5 1\n"), "points3D.txt:1"),
    "points cut at a line": (cut_at_a_line, "header says"),
    "model file missing": (lambda f: (f / MODEL / "points3D.txt").unlink(), "points3D.txt missing"),
    "image missing": (lambda f: (f / PHOTO).unlink(), "DSC_0002.JPG: missing"),
    "image truncated": (lambda f: truncate(f / PHOTO), "DSC_0002.JPG: cannot be read"),
    "image of another size": (small_photo, "is 10 x 10, its camera says 96 x 64"),
    "depth truncated": (lambda f: truncate(f / "ground_truth_depth/dslr_images/DSC_0002.JPG"), "DSC_0002.JPG: holds"),
    "mask of another size": (lambda f: write_mask(f, np.zeros((5, 5), np.uint8)), "shape"),
    "mask with unknown bits": (lambda f: write_mask(f, np.full((64, 96), 9, np.uint8)), "value 9"),
}


def write_mask(folder, values, name="masks_for_images/dslr_images/DSC_0002.png"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(folder / name)


@pytest.mark.parametrize("case", BREAKS)
def test_broken_files_are_named(scene, tmp_path, case):
    damage, words = BREAKS[case]
    damage(scene / "hall")
    with pytest.raises(UserError) as caught:
        prepare_scene(scene, "hall", HOW, tmp_path / "out")
    assert words in str(caught.value) and str(scene) in str(caught.value)


def test_a_truncated_binary_model_is_named(tmp_path):
    write_scene(tmp_path, "hall", seed=1, binary=True)
    truncate(tmp_path / "hall/dslr_calibration_jpg/images.bin")
    with pytest.raises(UserError, match="truncated"):
        read_scene(tmp_path, "hall")


def test_a_missing_data_set_says_where_to_get_it(tmp_path):
    assert missing_scenes(tmp_path, ("facade",)) == ["facade"]
    with pytest.raises(UserError, match="CC BY-NC-SA") as caught:
        read_scene(tmp_path, "facade")
    assert "eth3d.net" in str(caught.value) and "_dslr_undistorted.7z" in str(caught.value)


def undistorted_copy(root):
    """Add the scene's pinhole version, as ETH3D ships it."""
    folder = root / "hall"
    pycolmap.undistort_images(str(root / "flat"), str(folder / "dslr_calibration_jpg"), str(folder / "images"))
    shutil.copytree(root / "flat/images/dslr_images", folder / "images/dslr_images_undistorted")
    model = pycolmap.Reconstruction(str(root / "flat/sparse"))
    for image in model.images.values():
        image.name = image.name.replace("dslr_images/", "dslr_images_undistorted/")
    (folder / "dslr_calibration_undistorted").mkdir()
    model.write_text(str(folder / "dslr_calibration_undistorted"))


def test_laser_depth_is_paired_with_the_distorted_image(scene):
    """Pinhole images are preferred, but the laser depth beside them still lives on the distorted grid."""
    from_distorted = [prepare_view(view, SIZE, "crop", RANGE) for view in read_scene(scene, "hall")]
    undistorted_copy(scene)
    views = read_scene(scene, "hall")
    assert {view.camera.model_name for view in views} == {"PINHOLE"} and {v.depth_camera.model_name for v in views} != {
        "PINHOLE"
    }
    for ours, theirs in zip(from_distorted, (prepare_view(view, SIZE, "crop", RANGE) for view in views), strict=True):
        both = (ours.laser > 0) & (theirs.laser > 0)
        assert both.mean() > 0.8
        assert np.median(np.abs(ours.laser - theirs.laser)[both] / ours.laser[both]) < 0.01


def test_laser_depth_without_its_calibration_is_an_error(scene):
    undistorted_copy(scene)
    shutil.rmtree(scene / "hall/dslr_calibration_jpg")
    with pytest.raises(UserError, match="dslr_calibration_jpg"):
        read_scene(scene, "hall")


def test_calibrations_of_different_models_are_noticed(scene):
    undistorted_copy(scene)
    model = read_model(scene / "hall/dslr_calibration_jpg")
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), np.array([1.0, 0, 0])))
    model.write_text(str(scene / "hall/dslr_calibration_jpg"))
    with pytest.raises(UserError, match="disagree about the pose"):
        read_scene(scene, "hall")


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_prepared_depth_agrees_with_the_points(scene_root, fit):
    """The points were made from single pixels of the distorted laser depth: depth, pose and intrinsics must all agree."""
    for view in read_scene(scene_root, "hall"):
        ours = prepare_view(view, SIZE, fit, RANGE)
        sparse = rasterise(ours.points, *SIZE)
        both = (sparse > 0) & (ours.laser > 0)
        relative = np.abs(sparse - ours.laser)[both] / sparse[both]
        assert both.sum() > 15 and np.median(relative) < 0.01


def test_what_is_written_is_what_is_read(scene_root, prepared):
    for index, view in enumerate(read_scene(scene_root, "hall")):
        ours, stored = prepare_view(view, SIZE, "crop", RANGE), Scene(prepared[0]).read(index, dense=False)
        for name in ("image", "intrinsics", "extrinsics", "points", "laser"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(ours, name))


def test_views_agree_with_each_other(prepared):
    """Points of one view, seen from another, have that view's depth (where they are not hidden)."""
    scene = Scene(prepared[0])
    a, b = scene.read(0, dense=False), scene.read(1, dense=False)
    tensors = [torch.from_numpy(x)[None, None] for x in (a.laser, a.intrinsics, a.extrinsics)]
    world = unproject(*tensors)[0, 0].reshape(-1, 3).numpy()[a.laser.reshape(-1) > 0]
    local = world @ b.extrinsics[:, :3].T + b.extrinsics[:, 3]
    pixels = local @ b.intrinsics.T
    u, v = np.rint(pixels[:, 0] / pixels[:, 2]).astype(int), np.rint(pixels[:, 1] / pixels[:, 2]).astype(int)
    inside = (u >= 0) & (v >= 0) & (u < SIZE[1]) & (v < SIZE[0])
    there, expected = b.laser[v[inside], u[inside]], local[inside, 2]
    known = there > 0
    assert known.mean() > 0.8
    assert np.median(np.abs(there - expected)[known] / expected[known]) < 0.01


def test_principal_points_scale_with_the_half_pixel():
    camera = Pinhole(fx=100, fy=100, cx=49.5, cy=29.5, height=60, width=100)
    half = fit_camera(camera, (30, 50), "stretch")
    assert (half.cx, half.cy) == ((49.5 + 0.5) * 0.5 - 0.5, (29.5 + 0.5) * 0.5 - 0.5) and half.fx == 50
    cut = fit_camera(camera._replace(cx=44.5), (30, 30), "crop")
    assert (cut.cx, cut.cy) == (14.5, 14.5) and cut.fx == cut.fy


def test_pinhole_cameras_are_left_alone():
    camera = cameras()[2]
    assert pinhole_of(camera) == Pinhole(68.0, 69.0, 46.0, 30.5, 66, 90)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(41, 60),
    st.integers(41, 80),
    st.integers(14, 60),
    st.integers(14, 60),
)
def test_a_crop_moves_pixels_and_intrinsics_together(left, top, bottom, right, height, width):
    """The ray through a point is the same before and after: (u' - c') / f' == (u - c) / f."""
    k = np.array([[50, 0, 30.25], [0, 55, 20.75], [0, 0, 1]], np.float32)
    box, size = Box(left, top, right, bottom), (height, width)
    moved = move_intrinsics(k, box, size)
    sx = width / (right - left)
    u = 33.0
    u_moved = (u + 0.5 - left) * sx - 0.5
    assert (u_moved - moved[0, 2]) / moved[0, 0] == pytest.approx((u - k[0, 2]) / k[0, 0], abs=1e-4)


def test_nearest_depth_picks_the_pixel_under_the_centre():
    values = np.arange(48.0).reshape(6, 8)
    np.testing.assert_array_equal(pick(values, Box(0, 0, 8, 6), (6, 8)), values)
    np.testing.assert_array_equal(pick(values, Box(0, 0, 8, 6), (3, 4)), values[1::2, 1::2])
    np.testing.assert_array_equal(pick(values, Box(2, 1, 6, 5), (4, 4)), values[1:5, 2:6])


def test_the_nearest_point_of_a_pixel_wins():
    depth = rasterise(np.array([[2.2, 1.1, 5.0], [1.9, 0.8, 3.0], [2.4, 1.4, 4.0], [9, 9, 1]], np.float32), 3, 4)
    assert depth[1, 2] == 3 and (depth > 0).sum() == 1


@pytest.mark.parametrize(("bit", "blocks"), [(1, False), (2, True), (3, True)])
def test_masks_by_their_bits(scene, bit, blocks):
    """Bit 2: the scan is wrong here. Bit 1 concerns colour only, and the depth stays."""
    view = read_scene(scene, "hall")[1]
    write_mask(scene / "hall", np.full((view.camera.height, view.camera.width), bit, np.uint8))
    ours = prepare_view(read_scene(scene, "hall")[1], SIZE, "crop", RANGE)
    assert (ours.laser > 0).any() != blocks and (len(ours.points) > 0) != blocks


def test_depths_out_of_range_are_invalid(scene_root):
    view = prepare_view(read_scene(scene_root, "hall")[0], SIZE, "crop", (4.0, 5.0))
    for depths in (view.laser[view.laser > 0], view.points[:, 2]):
        assert len(depths) and depths.min() >= 4 and depths.max() <= 5


def test_regions_tell_walls_from_steps():
    depth = np.full((40, 40), 4.0, np.float32)
    depth += np.linspace(0, 1, 40, dtype=np.float32)  # a slanted wall is nearly affine in inverse depth at this size
    depth[10:25, 10:25] += 0.5
    depth[:4] = 0
    labels = regions_of(depth)
    assert (labels[depth == 0] == 0).all()
    assert (
        (labels[15:20, 15:20] == PLANAR).all() and (labels[9:11, 12:22] == DETAIL).all() and (labels[32:, 5:35] == PLANAR).all()
    )


def test_labels_made_by_hand_are_used(scene):
    labels = np.zeros((64, 96), np.uint8)
    labels[:, :48] = DETAIL
    write_mask(scene / "hall", labels, "region_masks/dslr_images/DSC_0001.png")
    regions = prepare_view(read_scene(scene, "hall")[0], SIZE, "crop", RANGE).regions
    assert set(np.unique(regions)) == {0, DETAIL} and (regions[:, 0] == DETAIL).all()


def test_densified_depth_is_exact_on_a_plane():
    rng = np.random.default_rng(0)
    u, v = rng.uniform(0, 55, 200), rng.uniform(0, 41, 200)
    inverse = 0.2 + 0.001 * u + 0.0005 * v
    dense = densify(np.stack([u, v, 1 / inverse], axis=-1).astype(np.float32), *SIZE)
    y, x = np.nonzero(dense)
    assert len(x) > 0.6 * dense.size
    np.testing.assert_allclose(dense[y, x], 1 / (0.2 + 0.001 * x + 0.0005 * y), rtol=1e-4)


def test_densifying_bridges_no_edge():
    points = np.array([[10, 10, 2.0], [20, 10, 8.0], [10, 20, 2.0], [20, 20, 8.0]], np.float32)
    assert (densify(points, *SIZE) == 0).all()
    assert (densify(points[:2], *SIZE) == 0).all()
    assert (densify(np.array([[1, 1, 2.0], [2, 2, 2.0], [3, 3, 2.0]], np.float32), *SIZE) == 0).all()


# --- sequences and samples -------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(1, 12), st.floats(0, 0.99))
def test_training_windows_cover_every_view(count, frames, overlap):
    views = list(range(count))
    windows = overlapping(views, frames, overlap)
    assert sorted({view for window in windows for view in window}) == views
    assert all(len(window) == min(frames, count) and window == sorted(window) for window in windows)


@given(st.integers(0, 60), st.integers(1, 12))
def test_evaluation_windows_hold_every_view_once(count, frames):
    windows = apart(list(range(count)), frames)
    assert [view for window in windows for view in window] == list(range(count))
    assert all(1 <= len(window) <= frames for window in windows)


def test_eight_frames_with_half_overlap():
    assert overlapping(list(range(20)), 8, 0.5) == [list(range(s, s + 8)) for s in (0, 4, 8, 12)]
    assert overlapping(list(range(19)), 8, 0.5)[-1] == list(range(11, 19))


def data(**changes) -> Data:
    return Data(**{"scenes": ("hall", "yard"), "resolution": SIZE, "frames": 4, "target": "laser", **changes})


def sample(prepared, index=0, epoch=0, train=True, **changes):
    return SequenceDataset(prepared, data(**changes), 14, train)[Draw(seed=1, epoch=epoch, step=0, index=index)]


def test_split_by_image_and_by_scene(prepared):
    def names(train, split):
        samples = SequenceDataset(prepared, data(split=split), 14, train)
        return {(scene, view) for i in range(len(samples)) for scene, views in [samples.names(i)] for view in views}

    by_image = [names(train, Split(by="image", train=0.67)) for train in (True, False)]
    assert len(by_image[0]) == 8 and len(by_image[1]) == 4 and not by_image[0] & by_image[1]
    by_scene = [names(train, Split(by="scene")) for train in (True, False)]
    assert {scene for scene, _ in by_scene[0]} == {"hall"} and {scene for scene, _ in by_scene[1]} == {"yard"}


def test_a_split_that_leaves_nothing_is_an_error(prepared):
    with pytest.raises(UserError, match="leaves no image to evaluate on"):
        SequenceDataset(prepared, data(split=Split(by="image", train=0.99)), 14, train=False)


def test_samples_have_the_shapes_they_say(prepared):
    found = sample(prepared)
    assert found["images"].shape == (4, 3, *SIZE) and found["images"].dtype == torch.float32
    assert found["depths"].shape == found["masks"].shape == (4, *SIZE)
    assert found["intrinsics"].shape == (4, 3, 3) and found["extrinsics"].shape == (4, 3, 4)
    assert found["images"].min() >= 0 and found["images"].max() <= 1
    assert torch.equal(found["masks"], found["depths"] > 0)


def test_a_sample_is_a_pure_function_of_its_draw(prepared):
    strong = Augment(crop=0.6, aspect=0.2, mirror=0.5, jitter=0.3, grey=0.3)
    once, again, later = (sample(prepared, epoch=epoch, augment=strong) for epoch in (0, 0, 1))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["images"], later["images"])


@pytest.mark.parametrize(
    "augment", [Augment(crop=0.5), Augment(aspect=0.3), Augment(mirror=1.0), Augment(crop=0.6, aspect=0.2, mirror=1.0)]
)
def test_augmented_views_still_agree_with_each_other(prepared, augment):
    """Unprojected with its own intrinsics and pose, the first view's surface lands on the second view's depth."""
    s = sample(prepared, augment=augment)
    world = unproject(s["depths"][:1], s["intrinsics"][:1], s["extrinsics"][:1])[0][s["masks"][0]]
    local = world @ s["extrinsics"][1, :, :3].T + s["extrinsics"][1, :, 3]
    pixels = local @ s["intrinsics"][1].T
    u, v = (pixels[:, 0] / pixels[:, 2]).round().long(), (pixels[:, 1] / pixels[:, 2]).round().long()
    inside = (u >= 0) & (v >= 0) & (u < SIZE[1]) & (v < SIZE[0])
    there, expected = s["depths"][1][v[inside], u[inside]], local[inside, 2]
    known = there > 0
    assert known.sum() > 200
    assert ((there - expected).abs()[known] / expected[known]).median() < 0.015


def test_mirroring_twice_is_nothing(prepared):
    plain = {name: value.numpy() for name, value in sample(prepared).items() if name != "masks"}
    twice = mirrored(mirrored(plain))
    for name, value in plain.items():
        np.testing.assert_allclose(twice[name], value, atol=1e-6)


def test_multi_scale_changes_size_by_batch(prepared):
    samples = SequenceDataset(prepared, data(multi_scale=(28, 42, 56)), 14, train=True)
    sizes = {samples[Draw(1, 0, batch, 0)]["images"].shape[-2:] for batch in range(30)}
    assert sizes == {(28, 28), (28, 42), (42, 56)}
    assert len({samples[Draw(1, 0, 5, index)]["images"].shape[-2:] for index in range(len(samples))}) == 1


@pytest.mark.parametrize("target", ["sparse", "dense", "laser"])
def test_depth_targets(prepared, target):
    found = sample(prepared, target=target)
    share = found["masks"].float().mean()
    assert (share < 0.2) if target == "sparse" else (share > 0.4)
    assert (found["truth"] > 0).float().mean() > 0.4


def test_training_on_absent_laser_depth_is_an_error(scene, tmp_path):
    shutil.rmtree(scene / "hall/ground_truth_depth")
    prepare_scene(scene, "hall", HOW, tmp_path / "p")
    with pytest.raises(UserError, match="hall has no ground_truth_depth"):
        SequenceDataset([tmp_path / "p"], data(scenes=("hall",)), 14, train=True)
    assert len(SequenceDataset([tmp_path / "p"], data(scenes=("hall",), target="sparse"), 14, train=True)) == 2


@given(st.integers(0, 2**31), st.floats(0.3, 1), st.floats(0, 0.5))
def test_random_boxes_stay_inside_and_around_the_principal_point(seed, crop, aspect):
    k = np.array([[50, 0, 25.0], [0, 50, 22.0], [0, 0, 1]], np.float32)
    box = random_box(np.random.default_rng(seed), Augment(crop=crop, aspect=aspect), k, *SIZE)
    assert 0 <= box.left < box.right <= SIZE[1] and 0 <= box.top < box.bottom <= SIZE[0]
    assert (box.left + box.right) / 2 == pytest.approx(25.5, abs=1) and (box.top + box.bottom) / 2 == pytest.approx(22.5, abs=1)


def test_no_augmentation_is_the_identity():
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    plain = resize_image(image, Box(0, 0, SIZE[1], SIZE[0]), SIZE)
    np.testing.assert_array_equal(plain, image.transpose(2, 0, 1).astype(np.float32) / 255)
    np.testing.assert_allclose(jitter(np.random.default_rng(0), Augment(), plain), plain, atol=1e-6)
