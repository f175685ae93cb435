"""Which rows and boxes can be used, and why not the others. Nothing is mended, nothing is left out silently."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ablation.errors import UserError
from ablation.systems.kolors.data.answers import parse_answer, without_loops
from ablation.systems.kolors.data.boxes import KEPT, corners_of, examine_boxes, numbers_of
from ablation.systems.kolors.data.causes import Bad, Cause, Fault
from ablation.systems.kolors.data.conventions import Convention
from ablation.systems.kolors.data.frames import Corners, Evidence
from ablation.systems.kolors.data.images import place_of, read_image
from ablation.systems.kolors.data.layouts import Layout, parse_json
from ablation.systems.kolors.data.table import Row, bounded_lines, checked_row, read_table

LONGEST_LINE = 200_000
"""Bytes of a line of a layout file."""


class Candidate(NamedTuple):
    """A row, and how to get at the entries that may be its boxes."""

    row: Row
    entries: Callable[[], list[object]]
    """Raises Bad."""


class Rejected(NamedTuple):
    """A row that is not used, or one of its boxes, by its place in the list."""

    line: int
    box: int | None
    image: str
    fault: Fault


class Found(NamedTuple):
    """What there was, what is left, and what is wrong with the rest."""

    layouts: list[Layout]
    rejected: list[Rejected]
    rows: int
    boxes: int
    evidence: Evidence
    """Of the unit of the boxes."""


def labelled(table: Path, answers: dict[str, str]) -> Iterator[tuple[int, Candidate | Bad]]:
    """The rows of ``table`` with what the model answered to each picture."""
    for line, row in read_table(table):
        yield line, row if isinstance(row, Bad) else Candidate(row, lambda image=row.image: _answered(answers, image))


def laid_out(path: Path) -> Iterator[tuple[int, Candidate | Bad]]:
    """The lines of a layout file that somebody else wrote; sizes in it are not believed, but read from the pictures."""
    if not path.is_file():
        raise UserError(f"data.layouts: {path} is not there; docs/data.md describes the file")
    with path.open("rb") as file:
        for number, line in enumerate(bounded_lines(file, LONGEST_LINE), 1):
            try:
                yield number, _laid_out(number, line)
            except Bad as error:
                yield number, error


def examine(candidates: Iterable[tuple[int, Candidate | Bad]], root: Path, convention: Convention = KEPT) -> Found:
    """Check rows, pictures and boxes, written in ``convention``; the pictures are below ``root``."""
    layouts, rejected, rows, boxes, seen, sizes = [], [], 0, 0, {}, _Sizes(root)
    evidence = Evidence(convention)
    for line, candidate in tqdm(candidates, desc="checking pictures and boxes", unit="row", disable=None):
        rows += 1
        image = "" if isinstance(candidate, Bad) else candidate.row.image
        try:
            if isinstance(candidate, Bad):
                raise candidate
            place, size = sizes(image)
            if candidate.row.caption in seen.get(place, ()):
                raise Bad(Cause.TWICE, candidate.row.caption)
            entries = candidate.entries()
            entries = without_loops(entries, convention) if convention.answer else entries
            if place not in seen:
                evidence.add(size, _drawn(entries, convention))
            seen.setdefault(place, set()).add(candidate.row.caption)
            examined = examine_boxes(entries, convention, size)
            boxes += len(entries)
            rejected += [Rejected(line, number, image, fault) for number, fault in examined.bad]
            if not examined.boxes:
                raise Bad(Cause.NO_BOXES)
            layouts.append(Layout(place, *size, candidate.row.caption, examined.boxes))
        except Bad as bad:
            rejected.append(Rejected(line, None, image, bad.fault))
    return Found(layouts, rejected, rows, boxes, evidence)


def _drawn(entries: list[object], convention: Convention) -> Iterator[Corners]:
    """The corners of all entries that have four numbers, good or not."""
    for entry in entries:
        try:
            yield corners_of(numbers_of(entry[convention.key]), convention)
        except (Bad, TypeError, KeyError):
            continue


class _Sizes:
    """Path below the root, links followed, and size of every picture, each decoded once."""

    def __init__(self, root: Path):
        self.root = root
        self._known: dict[str, tuple[str, tuple[int, int]] | Cause] = {}

    def __call__(self, image: str) -> tuple[str, tuple[int, int]]:
        if image not in self._known:
            try:
                place = place_of(self.root, image).relative_to(self.root.resolve()).as_posix()
                self._known[image] = place, read_image(self.root, image).size
            except Bad as bad:
                self._known[image] = bad.fault.cause
        found = self._known[image]
        if isinstance(found, Cause):
            raise Bad(found, image)
        return found


def _answered(answers: dict[str, str], image: str) -> list[object]:
    if image not in answers:
        raise Bad(Cause.UNANSWERED)
    return parse_answer(answers[image])


def _laid_out(number: int, line: bytes) -> Candidate:
    try:
        value = parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except ValueError:
        raise Bad(Cause.ROW, line) from None
    if len(line) > LONGEST_LINE or not isinstance(value, dict) or not isinstance(value.get("boxes"), list):
        raise Bad(Cause.ROW, line)
    row = checked_row(number, value.get("image"), value.get("caption"))
    return Candidate(row, lambda: value["boxes"])
