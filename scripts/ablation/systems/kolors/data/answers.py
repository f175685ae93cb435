"""What the vision-language model is asked, and what of its answers is taken."""

import re

from ablation.systems.kolors.data.causes import Bad, Cause
from ablation.systems.kolors.data.layouts import parse_json

QUESTION = (
    "Find the objects in this picture. Answer with JSON alone, a list with an entry for each object: "
    '[{"label": "...", "bbox": [x1, y1, x2, y2]}]. The label is a short phrase. The box is left, top, right, bottom '
    "as whole numbers from 0 to 1000, where 1000 is the picture's width or height."
)
LONGEST_ANSWER = 50_000
FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
"""An answer that is a Markdown block from end to end; taking off the fence changes nothing of what it says."""
BEGINS, ENDS = re.compile(r"[\[{]"), re.compile(r"[\]}]")


def parse_answer(text: str) -> list[object]:
    """The entries of an answer, not yet checked. Raises Bad: an answer is read as it stands, or not at all."""
    if len(text) > LONGEST_ANSWER:
        raise Bad(Cause.ANSWER, text)
    fenced = FENCED.fullmatch(text)
    try:
        value = parse_json(fenced[1] if fenced else text)
    except ValueError:
        raise Bad(Cause.BESIDE if _hides_json(text) else Cause.ANSWER, text) from None
    if not isinstance(value, list):
        raise Bad(Cause.NO_LIST, value)
    return value


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
