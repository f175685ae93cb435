"""Text of any origin as typst can set it."""

import re
from typing import Any

LONGEST = 16  # letters without a place to break
NO_WIDTH = "\N{ZERO WIDTH SPACE}"
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONG = re.compile(rf"\S{{{LONGEST + 1},}}")
_BREAK = re.compile(rf"([-_/.,=|:;]+)(?=\S)|([^\s\-_/.,=|:;]{{{LONGEST}}})(?=\S)")


def plain(text: str) -> str:
    """Without control characters and halves of characters; long words, such as paths, may be broken into lines."""
    text = text.encode("utf-8", "replace").decode()
    return _LONG.sub(lambda word: _BREAK.sub(rf"\g<0>{NO_WIDTH}", word[0]), _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text))


def all_plain(value: Any) -> Any:
    """The same of every text in what is written as JSON."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {name: all_plain(each) for name, each in value.items()}
    return [all_plain(each) for each in value] if isinstance(value, list) else value
