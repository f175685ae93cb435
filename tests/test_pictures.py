"""Every kind of picture file is read right or refused by name, by all five systems; docs/data.md says what this finds."""

import os
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from picture_kinds import HEIGHT, WIDTH, deep, drawing, grey, kinds, outcome, png, saved, tiff, turned_by_its_tag
from picture_readers import MOST, READERS, prepared
from PIL import Image
from scenes import write_scene

from ablation.errors import UserError
from ablation.systems.dit.data.folder import folder_images
from ablation.systems.hunyuan3d.data.images import read_rgba
from ablation.systems.opening import FORMATS, MOST_PIXELS, SUFFIXES, Kind, Unreadable, opened, read_rgb
from ablation.systems.vggt.data.eth3d import read_scene
from ablation.systems.vggt.data.view import prepare_view

PAGE = ROOT / "docs/data.md"
TABLE = re.compile(r"(?<=<!-- by `make picture-table` -->\n\n)\|.*?(?=\n\n)", re.S)
"""In the page: what stands between that line and the next empty one."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """In Markdown, by what each system's own reading of a folder makes of every kind."""
    folder = tmp_path_factory.mktemp("kinds")
    rows = [["file", *(f"`{system}`" for system in READERS)], ["---"] * (len(READERS) + 1)]
    for number, (kind, files) in enumerate(kinds().items()):
        found = [outcome(read, folder / f"{number}-{system}", files) for system, read in READERS.items()]
        rows.append([kind, *found])
    rows.append(["most pixels", *(MOST[system] for system in READERS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_page_says_what_every_system_does_with_every_kind(table):
    if os.environ.get("PICTURE_TABLE"):
        PAGE.write_text(TABLE.sub(lambda _: table, PAGE.read_text()))
    assert TABLE.findall(PAGE.read_text()) == [table], "run `make picture-table`"


def test_every_kind_of_refusal_is_in_the_table(table):
    """Unopened files are none of a picture's kinds."""
    assert {kind for kind in Kind if f"*{kind}*" not in table} == {Kind.UNOPENED}


@pytest.mark.parametrize("form", ["png", "tiff"])
def test_16_bits_of_grey_are_scaled_not_clipped(tmp_path, form):
    """Rounded, as COLMAP reads them; the middle of the range is the middle of the range."""
    values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    content = png(values, 0) if form == "png" else tiff(values)
    image = prepared(tmp_path, content)
    assert np.array_equal(image, np.dstack([np.round(values / 257).astype(np.uint8)] * 3)) and 127 <= image.mean() <= 128


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_16_bits_are_right_to_a_level_or_refused(tmp_path_factory, low, high):
    path = tmp_path_factory.getbasetemp() / "deep.png"
    for values, colour_type in ((np.array([[low, high]], np.uint16), 0), (np.array([[[low] * 3, [high] * 3]], np.uint16), 2)):
        path.write_bytes(png(values, colour_type))
        try:
            found = np.asarray(read_rgb(path, upright=True, background="white"))
        except Unreadable as error:
            assert error.kind == Kind.LEVELS and abs(low - high) < 2**14 + 2**9
        else:
            assert np.abs(found[0].astype(int) - np.array([[low], [high]]) / 257).max() <= 1


@pytest.mark.parametrize("form", FORMATS)
def test_ordinary_pictures_keep_every_bit(tmp_path, form):
    """What Pillow's own conversion gives, whatever is asked for."""
    path = tmp_path / f"a.{form.lower()}"
    path.write_bytes(saved(Image.fromarray(drawing()), form))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    for upright in (True, False):
        for background in ("white", None):
            assert np.array_equal(np.asarray(read_rgb(path, upright=upright, background=background)), expected)


def test_opaque_pictures_with_an_alpha_channel_keep_every_bit(tmp_path):
    Image.fromarray(drawing()).convert("RGBA").save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "a.png", upright=True, background="white")), drawing())


def test_a_scene_s_picture_is_told_that_its_camera_knows_no_orientation(tmp_path):
    """Its model is of the turned picture: pixels and camera would not agree."""
    turned = Image.fromarray(drawing()).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(UserError, match="EXIF orientation is 6, which COLMAP ignores"):
        prepared(tmp_path, saved(turned, "JPEG", exif=exif))


def test_pictures_of_a_shape_are_not_turned(tmp_path):
    """As OpenCV reads them in the release, and as their cameras mean them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = np.dstack([drawing(), np.full((HEIGHT, WIDTH), 200, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "000.png", exif=exif)
    assert np.array_equal(read_rgba(tmp_path / "000.png"), rgba)


def labelled(folder, labels: Image.Image) -> np.ndarray:
    """The regions of a view whose labels are stored so."""
    if not (folder / "hall").is_dir():
        write_scene(folder, "hall", seed=1, views=2)
    path = folder / "hall/region_masks/dslr_images/DSC_0001.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    labels.save(path)
    return prepare_view(read_scene(folder, "hall")[0], (28, 42), "crop", (0.1, 100.0)).regions


def test_labels_are_what_they_mean_however_they_are_stored(tmp_path):
    """A program that shrinks files may number the grey levels of a palette anew; a palette of colours shows its numbers."""
    values = np.random.default_rng(0).integers(0, 3, (64, 96), np.uint8)
    expected = labelled(tmp_path, Image.fromarray(values))
    assert set(np.unique(expected)) == {0, 1, 2}
    order = np.array([2, 0, 1], np.uint8)
    renumbered, coloured = Image.fromarray(np.argsort(order)[values].astype(np.uint8)), Image.fromarray(values)
    renumbered.putpalette(np.repeat(order, 3).tobytes())
    coloured.putpalette(bytes([0, 0, 0, 128, 0, 0, 0, 128, 0]))
    for stored in (renumbered, coloured, Image.fromarray(values.astype(np.uint16))):
        assert np.array_equal(labelled(tmp_path, stored), expected)
    with pytest.raises(UserError, match="holds the value 255; labels are 0, 1"):
        labelled(tmp_path, Image.fromarray(values > 0))
    with pytest.raises(UserError, match="mode RGB; labels are whole numbers"):
        labelled(tmp_path, Image.fromarray(values).convert("RGB"))


def test_a_refusal_names_the_remedy(tmp_path):
    path = tmp_path / "a.png"
    for content, said in {
        b"version https://git-lfs.github.com/spec/v1\n": "Git LFS pointer: `git lfs pull`",
        png(deep(grey(drawing())) >> 4, 0): "2 to 13 of 255, as 14 bits stored in 16 are; save it stretched",
        tiff(np.zeros((9, 9), np.float32)): "mode F; save it with 8 bits a channel",
        turned_by_its_tag("TIFF"): "save it without the tag",
    }.items():
        path.write_bytes(content)
        with pytest.raises(Unreadable, match=said):
            read_rgb(path, upright=False, background="white")


def test_as_many_pixels_as_are_allowed(tmp_path):
    Image.new("1", (100, 30)).save(tmp_path / "a.png")
    with opened(tmp_path / "a.png", most=3000) as image:
        assert image.size == (100, 30)
    with pytest.raises(Unreadable, match="too many pixels: 100 x 30, at most 2,999"), opened(tmp_path / "a.png", most=2999):
        pass
    assert MOST_PIXELS < 2 * Image.MAX_IMAGE_PIXELS, "Pillow refuses no picture that is allowed"


def test_pictures_that_are_not_read_are_counted_in_a_folder_too(tmp_path):
    """A class of HEIC files is not an empty folder."""
    (tmp_path / "class").mkdir()
    for suffix in SUFFIXES:
        (tmp_path / "class" / f"a{suffix.upper()}").write_bytes(b"")
    assert len(folder_images(tmp_path, "class").images) == len(SUFFIXES)
