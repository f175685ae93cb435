"""The demo's images: real photographs at known places, with captions that tell what is there and not where."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablation.errors import UserError
from ablation.systems.kolors.data.collages import EXTENT, OBJECTS, caption, collage, read_photographs, write_collages
from ablation.systems.kolors.data.layouts import image_root, read_layouts

PHOTOGRAPHS = Path(__file__).parent.parent / "resources/photographs"
SIDE = 64


@pytest.fixture(scope="module")
def sources():
    return read_photographs(PHOTOGRAPHS)


def drawn(sources, number: int, side: int = SIDE):
    return collage(sources, np.random.default_rng([0, number]), side)


def test_an_image_is_a_function_of_its_seed_and_number(tmp_path):
    one, two, fewer, other = (tmp_path / name for name in ("one", "two", "fewer", "other"))
    write_collages(PHOTOGRAPHS, one, 6, 3, SIDE)
    write_collages(PHOTOGRAPHS, two, 6, 3, SIDE)
    write_collages(PHOTOGRAPHS, fewer, 4, 3, SIDE)
    write_collages(PHOTOGRAPHS, other, 6, 4, SIDE)
    for name in ("layouts.jsonl", *(f"images/{number:06d}.png" for number in range(6))):
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert (one / name).read_bytes() != (other / name).read_bytes()
    assert (one / "layouts.jsonl").read_text().startswith((fewer / "layouts.jsonl").read_text())


def test_layouts_are_those_that_the_data_are_read_from(tmp_path):
    write_collages(PHOTOGRAPHS, tmp_path, 8, 0, SIDE)
    layouts = read_layouts(tmp_path)
    assert len(layouts) == 8
    for layout in layouts:
        with Image.open(image_root(tmp_path) / layout.image) as image:
            assert image.size == (layout.width, layout.height) == (SIDE, SIDE)


def test_boxes_are_where_the_objects_are(sources):
    """What is in a box looks like the photograph of its label more than like any other; mirrored and brightened ones count."""
    wrong = total = 0
    for number in range(60):
        made = drawn(sources, number)
        for label, box in made.boxes:
            part = _vector(made.image.crop(box))
            alike = {name: _likeness(part, photograph) for name, photograph in sources.objects.items()}
            wrong += max(alike, key=alike.get) != label
            total += 1
    assert total > 100
    assert wrong == 0


def test_boxes_are_apart_within_the_image_and_of_the_size_promised(sources):
    for number in range(100):
        made = drawn(sources, number)
        assert OBJECTS[0] <= len(made.boxes) <= OBJECTS[1]
        for index, (_, box) in enumerate(made.boxes):
            left, top, right, bottom = box
            assert 0 <= left < right <= SIDE
            assert 0 <= top < bottom <= SIDE
            extent = np.sqrt((right - left) * (bottom - top)) / SIDE
            assert EXTENT[0] - 0.02 <= extent <= EXTENT[1] + 0.02
            for _, other in made.boxes[:index]:
                assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def test_captions_name_every_object_once_and_tell_no_places(sources):
    for number in range(100):
        made = drawn(sources, number)
        words = made.caption.split()
        assert sorted(word for word in words if word in sources.objects) == sorted(label for label, _ in made.boxes)
        assert any(made.caption.endswith(f" {where}") for where in sources.backgrounds)
        assert not {"left", "right", "top", "bottom", "above", "below", "beside", "middle"} & set(words)


def test_the_order_of_a_caption_is_not_that_of_the_boxes(sources):
    made = [drawn(sources, number) for number in range(200)]
    pairs = [one for one in made if len(one.boxes) == 2]
    same = [one.caption.index(one.boxes[0][0]) < one.caption.index(one.boxes[1][0]) for one in pairs]
    assert 0.3 < np.mean(same) < 0.7


def test_an_before_a_vowel():
    assert " an astronaut " in caption(np.random.default_rng(0), ["astronaut"], "on wood")
    assert " a cat " in caption(np.random.default_rng(0), ["cat"], "on wood")


def test_a_folder_without_photographs_is_named(tmp_path):
    with pytest.raises(UserError, match=r"objects: no photographs"):
        read_photographs(tmp_path)


def test_every_photograph_has_its_source():
    told = (PHOTOGRAPHS / "SOURCES.md").read_text()
    paths = sorted(path.relative_to(PHOTOGRAPHS).as_posix() for path in PHOTOGRAPHS.rglob("*.jpg"))
    assert len(paths) == 16
    assert [path for path in paths if f"| {path} |" not in told] == []
    assert sum(path.stat().st_size for path in PHOTOGRAPHS.rglob("*.jpg")) < 300_000


def test_layout_lines_are_plain_json(tmp_path):
    write_collages(PHOTOGRAPHS, tmp_path, 1, 0, SIDE)
    (line,) = (tmp_path / "layouts.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"image", "width", "height", "caption", "boxes"}


def _vector(image: Image.Image) -> np.ndarray:
    values = np.asarray(image.convert("RGB").resize((16, 16)), float).ravel()
    values -= values.mean()
    return values / np.linalg.norm(values)


def _likeness(part: np.ndarray, photograph: Image.Image) -> float:
    both = photograph, photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return max(float(part @ _vector(one)) for one in both)
