"""Kolors' data: nothing invalid is used, everything that is not used is counted, and texts are texts."""

import csv
import html
import json
import math
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import save_picture, some_layouts, write_table
from PIL import Image

from ablation.errors import UserError
from ablation.files import write_text
from ablation.systems.kolors.data.answers import LONGEST_ANSWER, parse_answer
from ablation.systems.kolors.data.boxes import LONGEST_LABEL, SCALE, Box, examine_boxes
from ablation.systems.kolors.data.causes import Bad, Cause
from ablation.systems.kolors.data.conventions import FAMILIES
from ablation.systems.kolors.data.images import MOST_PIXELS, read_image
from ablation.systems.kolors.data.layouts import LAYOUTS, image_root, read_layouts, write_layouts
from ablation.systems.kolors.data.quality import PAGE, QUALITY, REJECTED, as_text, write_quality
from ablation.systems.kolors.data.table import Row, read_table
from ablation.systems.kolors.data.validation import Found, examine, labelled, laid_out
from ablation.systems.opening import Kind

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "data/kolors/answers.jsonl").read_text().splitlines()]
GOOD = '[{"label": "cat", "bbox": [10, 20, 300, 400]}]'


def found_in(root: Path, rows: list[tuple[str, str]], answers: dict[str, str]) -> Found:
    return examine(labelled(write_table(root.parent / "table.tsv", rows), answers), root, FAMILIES["qwen2-vl"])


def causes(found: Found) -> list[str]:
    return [rejected.fault.cause for rejected in found.rejected]


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with one picture."""
    save_picture(tmp_path / "images/a.png")
    return tmp_path / "images"


class TestAnswers:
    @pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["name"])
    def test_recorded(self, root, recorded):
        """Answers in the style of such models: what is taken of each, and what is counted."""
        found = found_in(root, [("a.png", "a cat")], {"a.png": recorded["answer"]})
        boxes = [[box.label, list(box.bbox)] for layout in found.layouts for box in layout.boxes]
        assert (boxes, causes(found)) == (recorded["boxes"], recorded["causes"])

    @pytest.mark.parametrize(
        "answer",
        [
            "[" * 40_000,
            "[" * 20_000 + "]" * 20_000,
            f'[{{"label": "cat", "bbox": [1, 2, {"9" * 5000}, 4]}}]',
            "[]" + " " * 60_000,
        ],
        ids=["open", "nested", "digits", "long"],
    )
    def test_meant_to_break(self, answer):
        with pytest.raises(Bad) as error:
            parse_answer(answer)
        assert error.value.fault.cause == Cause.ANSWER

    @given(st.text(max_size=300) | st.text(alphabet='[]{}",:0123456789.eE+-\\ntrufalsbox`\n', max_size=300))
    def test_any_text(self, text):
        """Whatever the model says: the entries, or the cause."""
        try:
            assert isinstance(parse_answer(text), list)
        except Bad as error:
            assert isinstance(error.fault.cause, Cause)

    NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1000, 10.0, math.nan])
    VALUES = st.recursive(
        st.none() | st.booleans() | NUMBERS | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["label", "bbox", "x"]), inner),
    )
    CORNERS = st.lists(st.integers(-5, 1005) | VALUES, min_size=3, max_size=5) | st.lists(
        st.integers(0, 9), min_size=4, max_size=4
    )
    NEARLY = st.fixed_dictionaries({"label": st.text(max_size=150) | VALUES, "bbox": CORNERS | VALUES})

    @given(st.lists(NEARLY | VALUES, max_size=6))
    def test_no_invalid_box_passes(self, values):
        """Every entry is a proper box or has a cause, also what has gone through JSON."""
        for entries in (values, parse_answer(json.dumps(values))):
            examined = examine_boxes(entries)
            assert len(examined.boxes) + len(examined.bad) == len(entries)
            for label, (left, top, right, bottom) in examined.boxes:
                assert label.strip() and len(label) <= LONGEST_LABEL and label.encode() and "\n" not in label
                assert all(type(number) is int for number in (left, top, right, bottom))
                assert 0 <= left < right <= SCALE and 0 <= top < bottom <= SCALE

    def test_not_longer_than_bounded(self):
        entries = ", ".join(f'{{"label": "cat", "bbox": [0, 0, {n % 999 + 1}, {n // 999 + 1}]}}' for n in range(2000))
        with pytest.raises(Bad):
            parse_answer(f"[{entries}]")
        assert len(entries) > LONGEST_ANSWER


class TestTable:
    def read(self, path: Path, content: bytes) -> list[tuple[int, Row | Cause]]:
        path.write_bytes(content)
        return [(line, row.fault.cause if isinstance(row, Bad) else row[1:]) for line, row in read_table(path)]

    def test_lines(self, tmp_path):
        """Quotes are characters, CRLF and a missing last line break are fine, so is a byte order mark."""
        content = '\ufeffa.png\ta "cat", 12\' high\r\nb c.png\t  two\u2028dogs  \nd.png\té'
        assert self.read(tmp_path / "t.tsv", content.encode()) == [
            (1, ("a.png", 'a "cat", 12\' high')),
            (2, ("b c.png", "two dogs")),
            (3, ("d.png", "é")),
        ]

    def test_heading(self, tmp_path):
        """The first line alone, and only in these words."""
        content = b"Image\tCaption\nimage\tcaption\n"
        assert self.read(tmp_path / "t.tsv", content) == [(2, ("image", "caption"))]

    @pytest.mark.parametrize(
        "line",
        [b"", b"a.png", b"a.png\t", b"a.png\t \t", b"\tcat", b"a.png\tcat\tdog", b"a.png\t\xff\xfe", b"a\x00.png\tcat",
         b"a.png\tc\x1bat", b"a.png\t" + b"x" * 3000, b"x" * 100_000, b"a\xe2\x80\xa8b.png\tcat"],
    )  # fmt: skip
    def test_malformed(self, tmp_path, line):
        """Counted on its line; the next row is read as if nothing had been."""
        assert self.read(tmp_path / "t.tsv", line + b"\nb.png\tdog\n") == [(1, Cause.ROW), (2, ("b.png", "dog"))]

    def test_absent(self, tmp_path):
        with pytest.raises(UserError, match=r"t\.tsv is not there"):
            list(read_table(tmp_path / "t.tsv"))


class TestImages:
    def refused(self, root: Path, image: str) -> Cause:
        with pytest.raises(Bad) as error:
            read_image(root, image)
        return error.value.fault.cause

    def test_leaving_the_folder(self, root):
        save_picture(root.parent / "secret.png")
        (root / "link.png").symlink_to(root.parent / "secret.png")
        (root / "up").symlink_to(root.parent)
        leaving = ("../secret.png", str(root / "a.png"), "x/../../secret.png", "link.png", "up/secret.png", "..")
        assert [self.refused(root, image) for image in leaving] == [Cause.LEAVES] * len(leaving)

    def test_link_within(self, root):
        (root / "b.png").symlink_to(root / "a.png")
        assert read_image(root, "b.png").size == (40, 30)

    def test_absent(self, root):
        (root / "loop.png").symlink_to(root / "loop.png")
        absent = ("b.png", ".", "a.png/b", "x" * 5000, "loop.png", "~", "a\0.png")
        assert [self.refused(root, image) for image in absent] == [Cause.ABSENT] * len(absent)

    def test_unreadable(self, root):
        whole = (root / "a.png").read_bytes()
        save_picture(root / "a.jpg")
        (root / "text.png").write_text("no picture")
        (root / "none.png").write_bytes(b"")
        (root / "cut.png").write_bytes(whole[: len(whole) // 2])
        (root / "cut.jpg").write_bytes((root / "a.jpg").read_bytes()[:-400])
        (root / "flipped.png").write_bytes(whole[:60] + bytes(b ^ 255 for b in whole[60:100]) + whole[100:])
        (root / "vector.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        (root / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
        assert {name: self.refused(root, name) for name in ("text.png", "none.png", "cut.png", "pointer.png")} == {
            "text.png": Cause.FOREIGN,
            "none.png": Cause.EMPTY_FILE,
            "cut.png": Cause.DAMAGED,
            "pointer.png": Cause.POINTER,
        }
        assert self.refused(root, "cut.jpg") == self.refused(root, "flipped.png") == Cause.DAMAGED
        assert self.refused(root, "vector.eps") == Cause.FOREIGN

    def test_bombs_do_not_go_off(self, root):
        """By the head of the file: its pixels would take 300 MB and more."""
        for number, (width, height) in enumerate([(MOST_PIXELS // 8000 + 1, 8000), (60_000, 60_000)]):
            head = (root / "a.png").read_bytes()
            chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + head[24:29]
            (root / f"{number}.png").write_bytes(head[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + head[33:])
            assert self.refused(root, f"{number}.png") == Cause.TOO_LARGE

    def test_too_narrow(self, root):
        save_picture(root / "line.png", (600, 10))
        assert self.refused(root, "line.png") == Cause.TOO_NARROW

    def test_upright_and_on_white(self, root):
        """As people see it, and so as boxes mean it."""
        exif = Image.Exif()
        exif[0x0112] = 6
        save_picture(root / "turned.jpg", (40, 30), exif=exif)
        clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
        clear.putpixel((7, 7), (255, 0, 0, 255))
        clear.save(root / "clear.png")
        assert read_image(root, "turned.jpg").size == (30, 40)
        assert read_image(root, "clear.png").getpixel((0, 0)) == (255, 255, 255)

    @given(st.binary(max_size=200), st.integers(0, 500))
    def test_any_bytes(self, tmp_path_factory, junk, at):
        root = tmp_path_factory.getbasetemp()
        whole = save_picture(root / "whole.png", (4, 4)).read_bytes()
        (root / "fuzzed.png").write_bytes(whole[:at] + junk + whole[at + len(junk) :])
        try:
            assert read_image(root, "fuzzed.png").mode == "RGB"
        except Bad as error:
            assert error.fault.cause in {*map(Cause, Kind), Cause.TOO_NARROW}


class TestRows:
    def test_what_is_used(self, root):
        """Sizes come from the picture; another caption of a picture is another row, the same one is not."""
        save_picture(root / "sub/b.jpg", (20, 50))
        rows = [("a.png", "a cat"), ("./a.png", "a cat"), ("a.png", "a feline"), ("sub/b.jpg", "it"), ("c.png", "?")]
        rows.append(("sub", "?"))
        answers = {"a.png": GOOD, "./a.png": GOOD, "sub/b.jpg": GOOD}
        found = found_in(root, rows, answers)
        used = [(layout.image, layout.width, layout.height, layout.caption) for layout in found.layouts]
        assert used == [("a.png", 40, 30, "a cat"), ("a.png", 40, 30, "a feline"), ("sub/b.jpg", 20, 50, "it")]
        assert [(r.line, r.fault.cause) for r in found.rejected] == [(2, Cause.TWICE), (5, Cause.ABSENT), (6, Cause.ABSENT)]

    def test_unanswered(self, root):
        assert causes(found_in(root, [("a.png", "a cat")], {})) == [Cause.UNANSWERED]

    def test_layout_file(self, root):
        """Somebody else's file goes through the same checks; its sizes are not believed."""
        save_picture(root / "b.png")
        good = {"image": "a.png", "width": 7, "height": 7, "caption": "a cat", "boxes": json.loads(GOOD)}
        lines = [
            good,
            {**good, "image": "../a.png"},
            {**good, "image": 7},
            {**good, "caption": ""},
            {**good, "boxes": None},
            {**good, "image": "b.png", "boxes": [{"label": "cat", "bbox": [300, 20, 10, 400]}]},
            [],
        ]
        write_text(root.parent / "given.jsonl", "\n".join(map(json.dumps, lines)) + "\n{\n")
        found = examine(laid_out(root.parent / "given.jsonl"), root)
        assert [(layout.width, layout.height) for layout in found.layouts] == [(40, 30)]
        expected = [Cause.LEAVES, Cause.ROW, Cause.ROW, Cause.ROW, Cause.SWAPPED, Cause.NO_BOXES, Cause.ROW, Cause.ROW]
        assert causes(found) == expected and [r.line for r in found.rejected] == [2, 3, 4, 5, 6, 6, 7, 8]

    def test_written_and_read_again(self, tmp_path):
        layouts = some_layouts(tmp_path, 3)
        write_layouts(layouts, tmp_path, tmp_path / "out")
        assert read_layouts(tmp_path / "out") == layouts and image_root(tmp_path / "out") == tmp_path
        write_layouts(layouts, None, tmp_path / "out")
        assert image_root(tmp_path / "out") == tmp_path / "out"

    @pytest.mark.parametrize("line", ["{", "[]", "{}", '{"image": "a", "width": 1, "height": 1, "caption": "", "boxes": [{}]}'])
    def test_damaged_file(self, tmp_path, line):
        write_layouts(some_layouts(tmp_path, 1), None, tmp_path)
        with (tmp_path / LAYOUTS).open("a") as file:
            file.write(line)
        with pytest.raises(UserError, match=r"layouts.jsonl, line 2: no layout"):
            read_layouts(tmp_path)


class TestReport:
    NASTY = ["<script>alert(1)</script>", "a | b", "`rm -rf`", '"quoted"', "[x](javascript:y)", "=1+1", "$x$", "*_~\\#", "茶壶"]

    def report(self, root: Path) -> tuple[dict, str, str]:
        boxes = [{"label": label, "bbox": [0, 0, 10, 10 + n]} for n, label in enumerate(self.NASTY)]
        boxes += [{"label": "=cmd", "bbox": ["<b>", "\n|", "=1", 4]}]
        rows = [("a.png", "a cat"), ("<img>.png", "?"), ("=b.png", "?"), *[(f"{n}.png", "?") for n in range(30)]]
        found = found_in(root, rows, {"a.png": json.dumps(boxes)})
        write_quality(found, "t<able>.tsv", root.parent)
        files = [(root.parent / name).read_text(encoding="utf-8") for name in (QUALITY, PAGE, REJECTED)]
        return json.loads(files[0]), files[1], files[2]

    def test_counts(self, root):
        summary, page, rejected = self.report(root)
        assert summary["rows"] == {"read": 33, "used": 1}
        assert summary["boxes"] == {"read": len(self.NASTY) + 1, "used": len(self.NASTY)}
        assert summary["causes"]["absent image"] == {"rows": 32, "boxes": 0, "lines": list(range(2, 22)), "more": True}
        assert summary["causes"]["coordinate is not a number"]["boxes"] == 1
        assert "| absent image | 32 | 0 | 2, 3, 4," in page
        assert len(rejected.splitlines()) == 1 + 32 + 1

    def test_texts_are_texts(self, root):
        """No cell of a table, no markup, no line and no formula is made of what a label or a path says."""
        _, page, rejected = self.report(root)
        labels = page.split("| label | boxes |\n|---|--:|\n")[1].splitlines()
        assert len(labels) == len(self.NASTY) and all(line.count("|") == 3 for line in labels)
        assert not set("<>`$*_[]()\\\"'=~") & set("".join(labels)) and "t<able>" not in page
        cells = [cell for row in list(csv.reader(rejected.splitlines()))[1:] for cell in row[3:-1] if cell]
        assert all(cell[0] in "'[{" for cell in cells)

    @given(st.text())
    def test_as_text(self, text):
        """A browser and a Markdown reader show what was said."""
        shown = as_text(text)
        assert not set("<>|`*_[]()\\\"'\n\r\t") & set(shown)
        if text.isprintable():
            assert html.unescape(shown) == text

    def test_nothing_left(self, root):
        found = found_in(root, [("b.png", "?"), ("../c.png", "?")], {})
        with pytest.raises(UserError, match=r"none of the 2 rows can be used\n  path leaves the folder: 1\n  absent image: 1"):
            write_quality(found, "t.tsv", root.parent)


def test_a_bad_box_costs_itself_alone():
    good = {"label": "cat", "bbox": [1, 2, 3, 4]}
    examined = examine_boxes([good, {**good, "bbox": [3, 2, 1, 4]}, {**good, "label": "dog"}])
    assert examined.boxes == (Box("cat", (1, 2, 3, 4)), Box("dog", (1, 2, 3, 4)))
    assert [(number, fault.cause) for number, fault in examined.bad] == [(1, Cause.SWAPPED)]
