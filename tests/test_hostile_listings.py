"""Listings, arrays and meshes may be anybody's: read right, or named in one message."""

import gzip
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hostile import NUMBERS, STRUCTURES, TEXTS, check_readable, corrupted, examples, mutated, used_or_refused
from hostile_files import JUNK, PICTURES, Bang
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ablation.errors import UserError
from ablation.outside import read_json
from ablation.systems.dit.data.coco import annotation_file, coco_images
from ablation.systems.dit.data.digits import FILE, write_digits
from ablation.systems.dit.data.told import inside
from ablation.systems.hunyuan3d.data.cameras import read_cameras
from ablation.systems.hunyuan3d.data.layout import read_distances, read_surface
from ablation.systems.hunyuan3d.mesh import load_mesh
from ablation.systems.kolors.data.validation import examine, labelled, laid_out

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture(scope="module")
def folder(root) -> Path:
    """With one picture."""
    (root / "pictures").mkdir()
    (root / "pictures/a.png").write_bytes(PICTURES["PNG"])
    return root / "pictures"


@examples(60)
@given(st.data())
def test_a_table_of_captions_may_be_anything(root, folder, data):
    path = root / "table.tsv"
    whole = b"image\tcaption\na.png\ta cat\n../a.png\tb\nb.png\tc\na.png\ta dog\n"
    path.write_bytes(data.draw(corrupted(whole, JUNK)))
    answer = data.draw(st.one_of(st.sampled_from(TEXTS), st.just('[{"label": "cat", "bbox": [1, 2, 3, 4]}]')))
    found = used_or_refused(lambda: examine(labelled(path, {"a.png": answer}), folder))
    assert isinstance(found, UserError) or {layout.image for layout in found.layouts} <= {"a.png"}


@examples(60)
@given(st.data())
def test_a_file_of_layouts_may_be_anything(root, folder, data):
    row = {"image": "a.png", "caption": "a cat", "boxes": [{"label": "cat", "bbox": [1, 2, 3, 4]}]}
    path = root / "layouts.jsonl"
    lines = [json.dumps(data.draw(mutated(row))).encode(), data.draw(corrupted(json.dumps(row).encode(), JUNK))]
    path.write_bytes(b"\n".join(lines))
    found = used_or_refused(lambda: examine(laid_out(path), folder))
    assert isinstance(found, UserError) or {layout.image for layout in found.layouts} <= {"a.png"}


@examples(60)
@given(st.data(), st.sampled_from(["class", "caption"]))
def test_annotations_of_coco_may_be_anything(root, data, condition):
    whole = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "area": 3.0, "iscrowd": 0, "caption": "a cat"},
            {"image_id": 2, "category_id": 7, "area": 9, "caption": "a dog"},
        ],
    }
    path = annotation_file(root, "some", condition)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data.draw(mutated(whole))))
    found = used_or_refused(lambda: coco_images(root, "some", condition))
    if not isinstance(found, UserError):
        assert all(isinstance(inside(root, told.file), bool) for told in found.images)
        check_readable(str(UserError(f"{found}")))


@examples(36)
@given(st.data())
def test_cameras_may_be_anything(root, data):
    frame = {"file_path": "000.png", "azimuth": 0.1, "elevation": 0.2, "camera_angle_x": 0.3}
    path = root / "transforms.json"
    path.write_text(json.dumps(data.draw(mutated({"frames": [frame, {**frame, "file_path": "001.png"}]}))))
    found = used_or_refused(lambda: read_cameras(path, [Path("000.png")]))
    assert isinstance(found, dict) or str(path) in str(found)


@examples(36)
@given(st.data())
def test_damaged_arrays_are_read_or_refused(root, data):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, random_surface=np.ones((5, 6), np.float16), sharp_surface=np.ones((4, 6), np.float16))
    path = root / "a_surface.npz"
    path.write_bytes(data.draw(corrupted(buffer.getvalue(), at_start=200)))
    found = used_or_refused(lambda: read_surface(path))
    assert not isinstance(found, UserError) or str(path) in str(found)


@pytest.mark.parametrize("value", [np.zeros((2**14, 2**15), np.float32), np.array([Bang(Path("bang"))], object)])
def test_arrays_that_unpack_without_end_or_hold_objects_are_refused(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ablation.systems.hunyuan3d.data.layout.LARGEST", 10**6)
    path = tmp_path / "a_surface.npz"
    np.savez_compressed(path, random_surface=value[:64] if value.ndim == 2 else value, sharp_surface=np.ones((4, 6)))
    with pytest.raises(UserError, match="a_surface"):
        read_surface(path)
    with pytest.raises(UserError, match="a_surface"):
        read_distances(path)
    assert not Path("bang").exists()


@pytest.mark.parametrize(
    "shape", ["(1099511627776, 6)", "(-1, 6)", "(9, 6" + ", 1" * 40 + ")", "(" * 500, "__import__('os').system('touch bang')"]
)
def test_the_head_of_an_array_is_not_believed(tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"\0" * 64
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("random_surface.npy", array)
        archive.writestr("sharp_surface.npy", array)
    with pytest.raises(UserError, match=r"a\.npz"):
        read_surface(tmp_path / "a.npz")
    assert not (tmp_path / "bang").exists()


@examples(48)
@given(st.data(), st.sampled_from(["ply", "obj", "stl", "off"]), st.booleans())
def test_a_damaged_mesh_is_read_or_refused(root, data, form, text):
    box = trimesh.creation.box()
    whole = box.export(file_type=form, **({"encoding": "ascii"} if form == "ply" and text else {}))
    path = root / f"mesh.{form}"
    whole = whole.encode() if isinstance(whole, str) else whole
    path.write_bytes(data.draw(corrupted(whole, JUNK if text else (), at_start=300)))
    found = used_or_refused(lambda: load_mesh(path))
    if not isinstance(found, UserError):
        assert np.isfinite(found.vertices).all() and found.faces.max() < len(found.vertices)


@pytest.mark.parametrize(
    "line", ["comment TextureFile ../secret.png", "element vertex 999999999999999", "element face 1152921504606846976"]
)
def test_a_mesh_reads_no_other_file_and_makes_no_room(tmp_path, monkeypatch, line):
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opens a picture"))
    Path(tmp_path / "secret.png").write_bytes(PICTURES["PNG"])
    head, body = trimesh.creation.box().export(file_type="ply").split(b"end_header\n")
    path = tmp_path / "in" / "a.ply"
    path.parent.mkdir()
    path.write_bytes(head + line.encode() + b"\nend_header\n" + body)
    used_or_refused(lambda: load_mesh(path))


def test_digits_that_unpack_without_end_are_refused(tmp_path):
    (tmp_path / FILE).write_bytes(gzip.compress(b"0," * 2**24))
    with pytest.raises(UserError, match="unpacks"):
        write_digits(tmp_path, tmp_path / "out", 16)


@pytest.mark.parametrize("value", [*NUMBERS, *STRUCTURES])
def test_json_of_any_kind_is_read_or_refused(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    used_or_refused(lambda: read_json(path, 10**5))


@pytest.mark.parametrize("text", ["[" * 10**5, "9" * 10**4, "{", "", "\ufeff\ufeff{}", '"' + "x" * 10**6])
def test_json_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(path, 10**5 + 1)


def test_a_device_or_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UserError):
            read_json(path, 100)
