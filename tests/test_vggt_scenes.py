"""Scenes that nobody here made: in a unit of their own, without points, in the layouts of COLMAP and 3DGS."""

import json
import logging
import random
import shutil

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scenes import write_scene
from small_vggt import run_of

from ablation.errors import UserError
from ablation.systems.base import Draw
from ablation.systems.vggt.data.dataset import SequenceDataset
from ablation.systems.vggt.data.eth3d import missing_scenes, read_scene
from ablation.systems.vggt.data.layout import CALIBRATIONS, DISTORTED, natural
from ablation.systems.vggt.data.making import prepare_scene
from ablation.systems.vggt.data.scene import Scene
from ablation.systems.vggt.settings import Data, Split
from ablation.systems.vggt.system import System

torch.set_num_threads(1)
SIZE = (42, 56)
HOW = {"size": SIZE, "fit": "crop", "depth_range": (0.1, 100.0), "dense": False}
MODEL = CALIBRATIONS[DISTORTED]


def in_unit(root, factor: float, name: str = "hall", laser: bool = False):
    """A scene whose model is ``factor`` times as large."""
    write_scene(root, name, seed=1)
    model = pycolmap.Reconstruction(str(root / name / MODEL))
    model.transform(pycolmap.Sim3d(factor, pycolmap.Rotation3d(), np.zeros(3)))
    model.write_text(str(root / name / MODEL))
    if not laser:
        shutil.rmtree(root / name / "ground_truth_depth")
    return root


def prepared(root, out, name: str = "hall", **how) -> Scene:
    prepare_scene(root, name, {**HOW, **how}, out)
    return Scene(out)


# --- units -----------------------------------------------------------------------------------------------------------


def test_preparation_says_what_the_range_leaves(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        scene = prepared(in_unit(tmp_path, 1), tmp_path / "out", depth_range=(0.1, 7.5))
    told = scene.description
    assert 0 < told["outside_range"] < 0.5 and 6 < told["median_depth"] < 8
    assert f"hall: median depth {told['median_depth']:.4g} m, {100 * told['outside_range']:.1f} % of its depths" in caplog.text
    views = [scene.read(index, dense=False) for index in range(len(scene.views))]
    assert told["views_with_few_depths"] == sum(len(view.points) <= 100 for view in views)


@pytest.mark.parametrize("factor", [19.6, 100.0, 0.002])
def test_a_range_that_leaves_little_is_refused_with_numbers_and_remedy(tmp_path, factor):
    """At 19.6 nine points were left, every loss was 0, and the run was `completed`; at 100 there was a traceback."""
    in_unit(tmp_path, factor)
    with pytest.raises(UserError, match=r"hall: .* within data.depth_range, 0.1 to (100|60) m") as refused:
        prepared(tmp_path, tmp_path / "out", depth_range=(0.1, 60.0) if factor == 19.6 else (0.1, 100.0))
    assert "data.scale: median" in str(refused.value) and "data.depth_range: [" in str(refused.value)
    low, high = json.loads(str(refused.value).rpartition("data.depth_range: ")[2])
    assert prepared(tmp_path, tmp_path / "again", depth_range=(low, high)).description["outside_range"] < 0.05


@pytest.mark.parametrize("laser", [False, True])
def test_with_the_median_as_unit_a_scene_is_the_same_in_every_unit(tmp_path, laser):
    """Samples, and so metrics, to what fp32 leaves."""
    data = Data(scenes=("hall",), resolution=SIZE, frames=3, scale="median", split=Split(train=0.5))
    samples = {}
    for factor in (1.0, 19.6, 100.0):
        root = in_unit(tmp_path / str(factor), factor, laser=False)
        if laser:
            write_laser(root, factor)
        scene = prepared(root, tmp_path / f"out-{factor}", scale="median")
        samples[factor] = SequenceDataset([scene.folder], data, 14, train=False)[Draw(0, 0, 0, 0)]
    for factor in (19.6, 100.0):
        for name, value in samples[1.0].items():
            torch.testing.assert_close(samples[factor][name].float(), value.float(), rtol=2e-5, atol=2e-5)


def write_laser(root, factor: float) -> None:
    """The laser depth of the scene, in the unit of its model."""
    write_scene(root / "metric", "hall", seed=1)
    folder = root / "hall/ground_truth_depth" / DISTORTED
    folder.mkdir(parents=True)
    for path in (root / "metric/hall/ground_truth_depth" / DISTORTED).iterdir():
        (np.fromfile(path, "<f4") * np.float32(factor)).tofile(folder / path.name)


@pytest.mark.parametrize("factor", [1.0, 19.6, 100.0])
def test_metrics_of_a_model_are_the_same_in_every_unit(tmp_path, tiny, factor):
    data = Data(scenes=("hall",), resolution=SIZE, frames=3, scale="median", split=Split(train=0.5))
    system = System(run_of(tmp_path, tiny).settings.model_copy(update={"data": data}))
    scene = prepared(in_unit(tmp_path, factor), tmp_path / "out", scale="median")
    torch.manual_seed(0)
    network = system.build().eval()
    found = system.evaluate(network, [scene.folder], tmp_path, torch.device("cpu")).metrics
    again = SEEN.setdefault("metrics", found)
    assert found == pytest.approx(again, rel=1e-3) and "depth_mae" in found
    assert {metric.unit for metric in system.settings.metrics()} == {"median depths", ""}


SEEN: dict = {}


# --- no points -------------------------------------------------------------------------------------------------------


def without_points(root):
    path = root / "hall" / MODEL / "points3D.txt"
    path.write_text("# 3D point list\n# Number of points: 0, mean track length: 0\n")
    images = root / "hall" / MODEL / "images.txt"
    lines = [line for line in images.read_text().splitlines() if not line.startswith("#")]
    images.write_text("\n".join(line if number % 2 == 0 else "" for number, line in enumerate(lines)) + "\n")


def test_poses_without_points_train_on_the_laser(tmp_path):
    write_scene(tmp_path, "hall", seed=1)
    without_points(tmp_path)
    scene = prepared(tmp_path, tmp_path / "out")
    data = Data(scenes=("hall",), resolution=SIZE, frames=3, target="laser", split=Split(train=0.5))
    sample = SequenceDataset([scene.folder], data, 14, train=True)[Draw(0, 0, 0, 0)]
    assert sample["masks"].float().mean() > 0.5
    with pytest.raises(UserError, match=r"data.target: sparse, but the COLMAP model of hall has no point"):
        SequenceDataset([scene.folder], data.model_copy(update={"target": "sparse"}), 14, train=True)


def test_poses_with_neither_points_nor_laser_are_refused(tmp_path):
    in_unit(tmp_path, 1)
    without_points(tmp_path)
    for scale in ("metric", "median"):
        with pytest.raises(UserError, match=r"hall: .*no view (has a depth|sees a point)"):
            prepared(tmp_path, tmp_path / "out", scale=scale)


# --- order -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10_000), unique=True, min_size=1), st.sampled_from(["", "left/", "IMG_", "a1b"]))
def test_pictures_are_in_the_order_of_their_numbers(numbers, before):
    names = [f"{before}{number}.jpg" for number in numbers]
    random.Random(0).shuffle(names)
    assert sorted(names, key=natural) == [f"{before}{number}.jpg" for number in sorted(numbers)]


@given(st.lists(st.text("ab0129./_", max_size=6), unique=True))
def test_every_list_of_names_has_one_order(names):
    names_backwards = [*reversed(names)]
    assert sorted(names, key=natural) == sorted(names_backwards, key=natural)


def renamed(root, names, to_colmap: bool = True, suffix: str = ".txt", model: str = "sparse/0", images: str = "images"):
    """The scene ``hall`` in COLMAP's own layout, its pictures called ``names``; returns its folder."""
    write_scene(root, "made", seed=1, views=len(names))
    made, scene = root / "made", root / "hall"
    reconstruction = pycolmap.Reconstruction(str(made / MODEL))
    for name, (number, image) in zip(names, sorted(reconstruction.images.items()), strict=True):
        source = made / "images" / DISTORTED / f"DSC_{number:04d}.JPG"
        target = scene / images / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as picture:
            picture.save(target, quality=98) if target.suffix != ".tif" else picture.save(target)
        image.name = name
    (scene / model).mkdir(parents=True)
    if suffix == ".txt":
        reconstruction.write_text(str(scene / model))
    else:
        reconstruction.write_binary(str(scene / model))
    shutil.rmtree(made)
    return scene


def test_windows_and_the_held_out_block_are_neighbours(tmp_path):
    renamed(tmp_path, [f"{number}.jpg" for number in range(1, 13)])
    scene = prepared(tmp_path, tmp_path / "out")
    assert scene.views == [f"{number}.jpg" for number in range(1, 13)]
    data = Data(scenes=("hall",), resolution=SIZE, frames=4, split=Split(train=0.75))
    held_out = SequenceDataset([scene.folder], data, 14, train=False)
    assert held_out.names(0) == ("hall", ["10.jpg", "11.jpg", "12.jpg"])


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["sparse/0", "sparse"])
@pytest.mark.parametrize("suffix", [".txt", ".bin"])
def test_colmap_s_own_layout_is_read_as_eth3d_s_is(tmp_path, scene_root, model, suffix):
    names = [f"DSC_{number:04d}.JPG" for number in range(1, 7)]
    renamed(tmp_path, names, suffix=suffix, model=model)
    assert missing_scenes(tmp_path, ("hall", "nowhere")) == ["nowhere"]
    for ours, theirs in zip(read_scene(tmp_path, "hall"), read_scene(scene_root, "hall"), strict=True):
        assert ours.name == theirs.name and ours.depth is None
        np.testing.assert_allclose(ours.cam_from_world, theirs.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(np.sort(ours.points, axis=0), np.sort(theirs.points, axis=0), atol=1e-6)


def test_two_cameras_with_equal_names_are_told_apart_by_their_folders(tmp_path):
    names = ["left/1.jpg", "left/2.jpg", "left/10.jpg", "right/1.jpg", "right/2.jpg", "right/10.jpg"]
    renamed(tmp_path, names)
    views = read_scene(tmp_path, "hall")
    assert [view.name for view in views] == names
    assert all(view.image == tmp_path / "hall/images" / view.name for view in views)
    assert len({view.cam_from_world.tobytes() for view in views}) == 6


@pytest.mark.parametrize("suffix", [".txt", ".bin"])
def test_names_with_spaces_and_tiffs_are_read(tmp_path, suffix):
    """pycolmap takes the first word of a name in a text model, so that all are called alike."""
    names = [f"my photo {number}.tif" for number in range(1, 7)]
    renamed(tmp_path, names, suffix=suffix)
    scene = prepared(tmp_path, tmp_path / "out")
    assert scene.views == names and scene.description["points_per_view"] > 20


def test_pictures_that_were_halved_are_read_with_their_cameras_halved(tmp_path):
    names = [f"{number}.png" for number in range(1, 7)]
    whole = renamed(tmp_path / "whole", names)
    halved = renamed(tmp_path / "halved", names, images="images_2")
    for path in (halved / "images_2").iterdir():
        with Image.open(path) as picture:
            picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX).save(path)
    one, two = (prepared(folder.parent, tmp_path / folder.parent.name / "out") for folder in (whole, halved))
    for index in range(6):
        ours, theirs = two.read(index, dense=False), one.read(index, dense=False)
        np.testing.assert_allclose(ours.intrinsics, theirs.intrinsics, rtol=1e-3)
        np.testing.assert_allclose(ours.points[:, 2].mean(), theirs.points[:, 2].mean(), rtol=0.05)


def test_pictures_that_the_disk_lacks_are_left_out_and_told(tmp_path, caplog):
    scene = renamed(tmp_path, [f"{number}.jpg" for number in range(1, 7)])
    for number in (2, 5):
        (scene / f"images/{number}.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        views = read_scene(tmp_path, "hall")
    assert [view.name for view in views] == ["1.jpg", "3.jpg", "4.jpg", "6.jpg"]
    assert "hall: 2 of 6 pictures are not in images: 2.jpg, 5.jpg" in caplog.text
    shutil.rmtree(scene / "images")
    with pytest.raises(UserError, match=r"none of images, images_2, images_4, images_8 is there"):
        read_scene(tmp_path, "hall")
    (scene / "images").mkdir()
    with pytest.raises(UserError, match="lists no image that"):
        read_scene(tmp_path, "hall")


def test_a_folder_without_a_model_says_where_one_was_looked_for(tmp_path):
    (tmp_path / "mine/images").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"no such scene; none of dslr_calibration_undistorted, dslr_calibration_jpg, sparse/0, sparse"
    ):
        read_scene(tmp_path, "mine")


def test_a_picture_outside_the_scene_is_refused(tmp_path):
    scene = renamed(tmp_path, [f"{number}.jpg" for number in range(1, 7)])
    path = scene / "sparse/0/images.txt"
    path.write_text(path.read_text().replace(" 3.jpg", " ../../3.jpg"))
    shutil.move(scene / "images/3.jpg", tmp_path / "3.jpg")
    with pytest.raises(UserError, match=r"leads out of"):
        read_scene(tmp_path, "hall")
