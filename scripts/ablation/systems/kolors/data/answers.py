"""What the vision-language model is asked, and what of its answers is taken."""

import json
import re

from ablation.systems.kolors.data.boxes import CUT, corners_of, numbers_of
from ablation.systems.kolors.data.causes import Bad, Cause, Fault
from ablation.systems.kolors.data.conventions import Convention
from ablation.systems.kolors.data.layouts import parse_json

UNITS = {
    "thousandths": "as whole numbers from 0 to 1000, where 1000 is the picture's width or height.",
    "pixels": "as whole numbers of pixels of this picture.",
}
LONGEST_ANSWER = 50_000
WORD = re.compile(r"\s*json(?![^\s\[{])", re.IGNORECASE)
"""The language of a Markdown block, behind the fence or on a line of its own."""
BEGINS, ENDS = re.compile(r"[\[{]"), re.compile(r"[\]}]")
BEGINNING, FOLLOWS = re.compile(r"\s*\[\s*"), re.compile(r"\s*(?:,\s*|\Z)")
"""What stands before the first entry of a list, and before each other one or the end of an answer that is cut off."""
LOOP = 8
"""Boxes in a row that repeat one label, size and step: what a model says that is caught in a loop."""
JITTER = 2
"""Thousandths or pixels by which they may differ."""


def question(convention: Convention) -> str:
    """The question that asks for boxes in ``convention``."""
    return (
        "Find the objects in this picture. Answer with JSON alone, a list with an entry for each object: "
        f'[{{"label": "...", "{convention.key}": [x1, y1, x2, y2]}}]. The label is a short phrase. The box is left, top, '
        f"right, bottom {UNITS[convention.unit]}"
    )


def parse_answer(text: str) -> list[object]:
    """The entries of an answer, not yet checked; the last is :data:`~boxes.CUT` where it breaks off. Raises Bad.

    A Markdown fence is taken off, closed or not: it changes nothing of what the answer says. All else is read as it stands.
    """
    if len(text) > LONGEST_ANSWER:
        raise Bad(Cause.ANSWER, text)
    bare = _unfenced(text)
    try:
        value = parse_json(bare)
    except ValueError:
        if (entries := _broken_off(bare)) is not None:
            return entries
        raise Bad(Cause.BESIDE if _hides_json(text) else Cause.ANSWER, text) from None
    if not isinstance(value, list):
        raise Bad(Cause.NO_LIST, value)
    return value


def without_loops(entries: list[object], convention: Convention) -> list[object]:
    """``entries`` with a :class:`~causes.Fault` for each box that drifts: ``LOOP`` on end have one label, size and step."""
    marked, run = list(entries), []
    for number, entry in enumerate(entries):
        box = _drawn(entry, convention)
        if not box or not _goes_on([drawn for _, drawn in run], box):
            run = run[-1:] if box and _goes_on([drawn for _, drawn in run[-1:]], box) else []
        run = [*run, (number, box)] if box else []
        if len(run) >= LOOP:
            for at, _ in run[-1:] if len(run) > LOOP else run:
                marked[at] = Fault(Cause.LOOP, entries[at])
    return marked


def _drawn(entry: object, convention: Convention) -> tuple[object, list[float]] | None:
    """Label, and left, top, width, height."""
    try:
        left, top, right, bottom = corners_of(numbers_of(entry[convention.key]), convention)
        return entry["label"], [left, top, right - left, bottom - top]
    except (Bad, TypeError, KeyError):
        return None


def _goes_on(run: list[tuple[object, list[float]]], box: tuple[object, list[float]]) -> bool:
    """Whether ``box`` is like the last of ``run``, and as far from it as the second of ``run`` from the first."""
    if not run:
        return False
    (label, last), (its, now) = run[-1], box
    if label != its or not _alike(last[2:], now[2:]) or last[:2] == now[:2]:
        return False
    return len(run) == 1 or _alike(_step(run[0][1], run[1][1]), _step(last, now))


def _step(one: list[float], two: list[float]) -> list[float]:
    return [two[0] - one[0], two[1] - one[1]]


def _alike(one: list[float], two: list[float]) -> bool:
    return all(abs(a - b) <= JITTER for a, b in zip(one, two, strict=True))


def _unfenced(text: str) -> str:
    bare = text.strip()
    if not bare.startswith("```"):
        return bare
    bare = bare.removeprefix("```").rstrip("`")
    word = WORD.match(bare)
    return bare[word.end() if word else 0 :]


def _broken_off(text: str) -> list[object] | None:
    """The complete entries of a list that ends in the midst of an entry or behind one, and ``CUT``; None for all else."""
    decoder, entries, at = json.JSONDecoder(), [], BEGINNING.match(text)
    while at:
        begin = at.end()
        if begin == len(text):
            return [*entries, CUT]
        try:
            _, end = decoder.raw_decode(text, begin)
            entries.append(parse_json(text[begin:end]))
        except (ValueError, RecursionError):
            return [*entries, CUT] if text[begin] == "{" and _is_open(text[begin:]) else None
        at = FOLLOWS.match(text, end)
    return None


def _is_open(text: str) -> bool:
    """Whether the object that ``text`` begins with is not closed by its end."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            quoted, escaped = escaped or character != '"', character == "\\" and not escaped
        elif character == '"':
            quoted = True
        else:
            depth += (character in "[{") - (character in "]}")
            if depth == 0:
                return False
    return True


def _hides_json(text: str) -> bool:
    """Whether a list or an object stands somewhere within ``text``; for the count alone, it is not used."""
    begin, ends = BEGINS.search(text), list(ENDS.finditer(text))
    if not begin or not ends or ends[-1].end() <= begin.start():
        return False
    try:
        parse_json(text[begin.start() : ends[-1].end()])
    except ValueError:
        return False
    return True
