"""Pictures, and the COLMAP models of strangers' scenes: read right, or named in one message. No bomb goes off."""

import struct
import zlib

import numpy as np
import pytest
from hostile import corrupted, examples, used_or_refused
from hostile_files import JUNK, PICTURES, png
from hypothesis import given
from hypothesis import strategies as st
from scenes import write_scene

from ablation.errors import UserError
from ablation.systems.dit.data.images import read_picture
from ablation.systems.opening import Unreadable
from ablation.systems.vggt.data.colmap import FILES, read_model
from ablation.systems.vggt.data.eth3d import read_scene
from ablation.systems.vggt.data.layout import CALIBRATIONS, DISTORTED
from ablation.systems.vggt.data.view import prepare_view

pytestmark = pytest.mark.usefixtures("root")

BOMBS = {
    "a PNG of 2 gigapixels": png(50_000, 40_000, zlib.compress(b"\0" * 10**6)),
    "a PNG with more pixels than it says": png(4, 4, zlib.compress(b"\0" * 10**8)),
    "a PNG of no size": png(0, 0, b""),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch pwned) (w) file\nshowpage\n",
    "a TIFF": b"II*\0\x08\0\0\0\0\0",
    "nothing": b"",
    "a web page": b"<svg onload=alert(1)>",
}


@examples(72)
@given(st.sampled_from(list(PICTURES)), st.data())
def test_a_damaged_picture_is_read_or_refused(root, form, data):
    path = root / "picture.png"
    path.write_bytes(data.draw(corrupted(PICTURES[form], at_start=60)))
    try:
        assert read_picture(path).mode == "RGB"
    except Unreadable as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_are_refused_by_their_heads(root, what):
    path = root / "bomb.png"
    path.write_bytes(BOMBS[what])
    if what == "a PNG with more pixels than it says":
        assert read_picture(path).size == (4, 4)
        return
    with pytest.raises(Unreadable):
        read_picture(path)


@pytest.fixture(scope="module")
def colmap(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The files of a model, text and binary."""
    found = {}
    for suffix in (".txt", ".bin"):
        folder = tmp_path_factory.mktemp("scene")
        write_scene(folder, "hall", seed=1, views=3, binary=suffix == ".bin")
        model = folder / "hall" / CALIBRATIONS[DISTORTED]
        found[suffix] = {f"{name}{suffix}": (model / f"{name}{suffix}").read_bytes() for name in FILES}
        found["folder"] = folder
    return found


@examples(90)
@given(st.data(), st.sampled_from([".txt", ".bin"]), st.sampled_from(FILES))
def test_a_damaged_colmap_model_is_read_or_refused(root, colmap, data, suffix, broken):
    folder = root / "model"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in colmap[suffix].items():
        hurt = name.startswith(broken)
        snippets = JUNK if suffix == ".txt" else ()
        (folder / name).write_bytes(data.draw(corrupted(content, snippets, at_start=90)) if hurt else content)
    found = used_or_refused(lambda: read_model(folder))
    if isinstance(found, UserError):
        assert str(folder) in str(found)
    else:
        assert all(np.isfinite(image.cam_from_world().matrix()).all() for image in found.images.values())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("count", [2**60, 2**64 - 1, 10**6, 0])
def test_counts_in_a_colmap_model_are_not_believed(root, colmap, name, count):
    folder = root / f"counts-{name}-{count}"
    folder.mkdir()
    for file, content in colmap[".bin"].items():
        (folder / file).write_bytes(struct.pack("<Q", count) + content[8:] if file.startswith(name) else content)
    with pytest.raises(UserError, match=f"{name}.bin"):
        read_model(folder)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "..", "a\x1b[2J", "a" * 300])
def test_the_pictures_of_a_scene_are_in_the_scene(root, colmap, name):
    scene = root / f"scene-{len(name)}" / "hall"
    model = scene / CALIBRATIONS[DISTORTED]
    model.mkdir(parents=True)
    (scene / "images" / DISTORTED).mkdir(parents=True)
    for file, content in colmap[".bin"].items():
        (model / file).write_bytes(content.replace(b"dslr_images/DSC_0001.JPG", name.encode()))
    with pytest.raises(UserError):
        read_scene(scene.parent, "hall")
    outside = root / "outside.JPG"
    outside.write_bytes(PICTURES["JPEG"])
    for file, content in colmap[".bin"].items():
        (model / file).write_bytes(content)
    for number in (1, 2, 3):
        link = scene / "images" / DISTORTED / f"DSC_{number:04d}.JPG"
        link.symlink_to(outside)
    with pytest.raises(UserError, match="leads out"):
        read_scene(scene.parent, "hall")


@examples(20)
@given(st.data())
def test_damaged_photographs_and_depths_of_a_scene(colmap, data):
    folder = colmap["folder"] / "hall"
    view = read_scene(folder.parent, "hall")[0]
    path = data.draw(st.sampled_from([view.image, view.depth]))
    content = path.read_bytes()
    try:
        path.write_bytes(data.draw(corrupted(content, at_start=60)))
        used_or_refused(lambda: prepare_view(view, (28, 42), "crop", (0.1, 100.0)))
    finally:
        path.write_bytes(content)
