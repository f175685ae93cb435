"""Boxes in another unit than declared are refused with numbers and a remedy; what is declared is understood."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import save_picture, write_table
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ablation.errors import UserError
from ablation.systems.kolors.data.boxes import SCALE
from ablation.systems.kolors.data.causes import Cause
from ablation.systems.kolors.data.conventions import FAMILIES, GIVEN, SEEN, Convention
from ablation.systems.kolors.data.frames import Evidence
from ablation.systems.kolors.data.quality import QUALITY, write_quality
from ablation.systems.kolors.data.settings import Data
from ablation.systems.kolors.data.validation import Found, examine, labelled, laid_out
from ablation.systems.kolors.preparation import prepare

WEB = [(640, 480), (480, 640), (640, 427), (500, 375), (612, 612), (800, 600), (1024, 768), (1600, 1200), (4000, 3000)]
NEAR = [(1000, 1000), (990, 1000), (1000, 667), (980, 735), (1020, 1020), (1024, 1024), (999, 999)]


def drawn(rng: np.random.Generator, style: str) -> list[list[float]]:
    """Boxes of one picture in shares, with no side preferred."""
    boxes = []
    for _ in range(rng.integers(1, {"crowded": 20}.get(style, 5))):
        size = rng.uniform(*{"small": (0.01, 0.1), "centred": (0.3, 0.5)}.get(style, (0.05, 0.9)), 2)
        middle = rng.normal(0.5, 0.03, 2) if style == "centred" else rng.uniform(0, 1, 2)
        middle[1] = middle[1] ** 0.5 if style == "low" else middle[1]
        corners = np.clip([*(middle - size / 2), *(middle + size / 2)], 0, 1)
        if min(corners[2:] - corners[:2]) > 0.005:
            boxes.append(corners.tolist())
    return boxes


THOUSANDTHS = st.sampled_from([GIVEN[None], FAMILIES["qwen2-vl"]])
STYLES = ["any", "small", "centred", "crowded", "low"]


def evidence(convention: Convention, sizes, count: int, style: str, seed: int, pixels: bool, last: int = SCALE) -> Evidence:
    """Of ``count`` pictures with boxes in pixels or in thousandths, of which none ends beyond ``last``."""
    rng, found = np.random.default_rng(seed), Evidence(convention)
    for _ in range(count):
        size = sizes[rng.integers(len(sizes))]
        frame = (convention.pixels(size) if pixels else (SCALE, SCALE)) * 2
        boxes = [[round(at * side) for at, side in zip(box, frame, strict=True)] for box in drawn(rng, style)]
        found.add(size, [box if pixels else [min(at, last) for at in box] for box in boxes])
    return found


class TestEvidence:
    MANY = settings(max_examples=60, deadline=None)

    @MANY
    @given(THOUSANDTHS, st.sampled_from(STYLES), st.lists(st.sampled_from(WEB + NEAR), min_size=1, max_size=4),
           st.integers(1, 400), st.integers(0, 2**31), st.sampled_from([998, 999, 1000]))  # fmt: skip
    def test_thousandths_are_believed(self, convention, style, sizes, count, seed, last):
        """Of few pictures and of many, of any size, wherever the objects are, also where a model never says 1000."""
        evidence(convention, sizes, count, style, seed, pixels=False, last=last).refuse("boxes")

    @MANY
    @given(THOUSANDTHS, st.sampled_from(["any", "crowded", "low"]),
           st.lists(st.sampled_from(WEB), min_size=1, max_size=4), st.integers(150, 400), st.integers(0, 2**31))  # fmt: skip
    def test_pixels_are_refused(self, convention, style, sizes, count, seed):
        with pytest.raises(UserError, match=r"declared as thousandths and look like pixels: in \d+ of \d+ pictures"):
            evidence(convention, sizes, count, style, seed, pixels=True).refuse("boxes")

    @MANY
    @given(st.sampled_from([GIVEN["pixels"], FAMILIES["qwen2.5-vl"]]), st.sampled_from(["any", "crowded", "low"]),
           st.lists(st.sampled_from(WEB), min_size=1, max_size=4), st.integers(150, 400), st.integers(0, 2**31),
           st.booleans())  # fmt: skip
    def test_declared_pixels(self, convention, style, sizes, count, seed, pixels):
        """Believed where they are pixels, refused where they are thousandths."""
        found = evidence(convention, sizes, count, style, seed, pixels)
        if pixels:
            found.refuse("boxes")
        else:
            with pytest.raises(UserError, match=r"declared as pixels and look like thousandths"):
                found.refuse("boxes")

    def test_round_numbers_are_no_borders(self):
        """Things in the middle of pictures 800 wide, told in hundreds, end where pixels would."""
        found = Evidence(GIVEN[None])
        for _ in range(200):
            found.add((800, 800), [(200, 200, 800, 800)])
        found.refuse("boxes")

    def test_what_is_said(self):
        """The numbers, and what to declare; and a file that is declared to be in thousandths is believed."""
        found = evidence(GIVEN[None], [(640, 427)], 80, "any", 0, pixels=True)
        with pytest.raises(
            UserError, match=r"(?s)80 of 80 .*own width and height.* end.*data.layouts_convention: pixels .*COCO"
        ):
            found.refuse("mine.jsonl")
        evidence(GIVEN["thousandths"], [(640, 427)], 80, "any", 0, pixels=True).refuse("mine.jsonl")
        with pytest.raises(UserError, match=r"as the model sees it.*\n.*data.labelled.convention: .*qwen2.5-vl"):
            evidence(FAMILIES["qwen2-vl"], [(640, 427)], 80, "any", 0, pixels=True).refuse("table.tsv")

    def test_sides_taken_for_corners(self):
        """COCO's x, y, width, height: most are swapped corners, those that are not would pass."""
        found, rng = Evidence(GIVEN["pixels"]), np.random.default_rng(0)
        for _ in range(40):
            boxes = np.array(drawn(rng, "crowded")) * 640
            found.add((640, 640), [(a, b, c - a, d - b) for a, b, c, d in boxes.tolist()])
        with pytest.raises(UserError, match=r"are these x, y, width, height\?\n.*pixels_xywh"):
            found.refuse("coco.jsonl")


@pytest.fixture
def root(tmp_path) -> Path:
    """Pictures of 40 x 20 and of 1500 x 1000 pixels."""
    save_picture(tmp_path / "images/a.png", (40, 20))
    save_picture(tmp_path / "images/large.png", (1500, 1000))
    return tmp_path / "images"


def given_as(root: Path, name: str | None, box: list[float], image: str = "a.png") -> Found:
    row = {"image": image, "caption": "a cat", "boxes": [{"label": "cat", "bbox": box}]}
    (root.parent / "given.jsonl").write_text(json.dumps(row) + "\n")
    return examine(laid_out(root.parent / "given.jsonl"), root, GIVEN[name])


def answered(root: Path, family: str, entries: list, image: str = "a.png") -> Found:
    table = write_table(root.parent / "table.tsv", [(image, "a cat")])
    return examine(labelled(table, {image: json.dumps(entries)}), root, FAMILIES[family])


def boxes_of(found: Found) -> list[tuple[int, ...]]:
    return [box.bbox for layout in found.layouts for box in layout.boxes]


class TestDeclared:
    @pytest.mark.parametrize(
        ("name", "box"),
        [(None, [250, 100, 1000, 900]), ("thousandths", [250, 100, 1000, 900]), ("pixels", [10, 2, 40, 18]),
         ("pixels_xywh", [10, 2, 30, 16]), ("pixels_xywh", [10.001, 2.0, 30.004, 16.0]), ("shares", [0.25, 0.1, 1, 0.9])],
    )  # fmt: skip
    def test_one_box_in_all_units(self, root, name, box):
        assert boxes_of(given_as(root, name, box)) == [(250, 100, 1000, 900)]

    @pytest.mark.parametrize(
        ("name", "box", "cause"),
        [("pixels", [10, 2, 41, 18], Cause.RANGE), ("pixels_xywh", [20, 2, 30, 16], Cause.RANGE),
         ("pixels_xywh", [20, 2, -5, 16], Cause.SWAPPED), ("pixels", [10, 2, 10, 18], Cause.EMPTY),
         ("shares", [25, 2, 40, 18], Cause.RANGE), ("pixels", [10, 2, 10**400, 3], Cause.RANGE),
         ("pixels", [1, 2, True, 3], Cause.NO_NUMBER)],
    )  # fmt: skip
    def test_checked_as_others_are(self, root, name, box, cause):
        assert [rejected.fault.cause for rejected in given_as(root, name, box).rejected] == [cause, Cause.NO_BOXES]

    def test_pixels_as_the_model_saw_them(self, root):
        """A picture of 1500 x 1000 is made 1204 x 812 for the model, and its pixels are meant."""
        width, height = FAMILIES["qwen2.5-vl"].frame((1500, 1000))
        entries = [{"label": "cat", "bbox_2d": [0, height // 2, width // 4, height]}]
        assert (width, height) != (1500, 1000)
        assert boxes_of(answered(root, "qwen2.5-vl", entries, "large.png")) == [(0, 500, 250, 1000)]

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("size", [(1, 1), (40, 20), (640, 427), (1500, 1000), (1000, 1003), (4000, 3000), (90, 3000)])
    def test_size_as_the_processor_makes_it(self, size, family):
        """The grid of patches that the processor itself gives, 14 or 16 pixels each."""
        patch = 16 if family == "qwen3-vl" else 14
        picture = torch.zeros(3, size[1], size[0], dtype=torch.uint8)
        seen = Qwen2VLImageProcessorPil(size=SEEN, patch_size=patch)(images=[picture], return_tensors="pt")
        _, rows, columns = seen["image_grid_thw"][0]
        assert FAMILIES[family].pixels(size) == (patch * columns, patch * rows)

    @pytest.mark.parametrize(
        ("family", "key", "cause"),
        [("qwen2-vl", "bbox_2d", "no key bbox, but bbox_2d"), ("qwen3-vl", "bbox", "no key bbox_2d, but bbox"),
         ("qwen2-vl", "box", "no key for the box")],
    )  # fmt: skip
    def test_another_key(self, root, family, key, cause):
        """Named as what is missing and what is there, and never taken in its place."""
        found = answered(root, family, [{"label": "cat", key: [1, 2, 30, 15]}])
        assert [rejected.fault.cause for rejected in found.rejected] == [cause, Cause.NO_BOXES]

    def test_another_key_throughout(self, root):
        """With nothing left, the message tells what to declare."""
        found = answered(root, "qwen2-vl", [{"label": "cat", "bbox_2d": [1, 2, 30, 15]}])
        with pytest.raises(UserError, match=r"no key bbox, but bbox_2d: 1\n  declare .*data.labelled.convention"):
            write_quality(found, "t.tsv", root.parent)

    def test_regular_boxes_of_your_own(self, root):
        """Keys of a keyboard, windows of a house: a loop is what a model is caught in, not what a person has drawn."""
        boxes = [{"label": "key", "bbox": [90 * n, 100, 90 * n + 80, 200]} for n in range(11)]
        (root.parent / "given.jsonl").write_text(json.dumps({"image": "a.png", "caption": "keys", "boxes": boxes}))
        assert len(boxes_of(examine(laid_out(root.parent / "given.jsonl"), root))) == 11
        assert boxes_of(answered(root, "qwen2-vl", boxes)) == []


def test_a_file_in_pixels_through_the_preparation(tmp_path):
    """Refused as it is, with the reports written; declared, it becomes layouts."""
    rng, lines = np.random.default_rng(0), []
    for number in range(30):
        save_picture(tmp_path / f"images/{number}.png", (64, 48), seed=number)
        corners = [[round(at * side) for at, side in zip(box, (64, 48, 64, 48), strict=True)] for box in drawn(rng, "any")]
        boxes = [{"label": "cat", "bbox": box} for box in [*corners, [3, 3, 40, 40]]]
        lines.append(json.dumps({"image": f"{number}.png", "caption": "a cat", "boxes": boxes}))
    (tmp_path / "given.jsonl").write_text("\n".join(lines))
    made = {}
    for name in (None, "pixels"):
        data = Data(
            source="layouts", root=str(tmp_path / "images"), layouts=str(tmp_path / "given.jsonl"), layouts_convention=name
        )
        made[name] = tmp_path / data.parts("vae", 4)[0].id
        made[name].mkdir()
    with pytest.raises(UserError, match=r"look like pixels: in 30 of 30 pictures"):
        prepare(data.model_copy(update={"layouts_convention": None}).parts("vae", 4)[0], [], made[None])
    assert (made[None] / QUALITY).is_file()
    prepare(data.parts("vae", 4)[0], [], made["pixels"])
    summary = json.loads((made["pixels"] / QUALITY).read_text())
    assert summary["rows"]["used"] == 30 and set(summary["causes"]) <= {"duplicate box", "empty box"}
