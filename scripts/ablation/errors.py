"""The one exception that is meant for the user."""

import unicodedata

LONGEST = 10_000  # characters of a message
KEPT = "\n\t"
TURNED = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # show a text in another order than it has


class UserError(Exception):
    """Bad input. The message is shown alone, without a traceback, and says what to do."""

    def __init__(self, message: str):
        super().__init__(readable(message))


def readable(text: str, longest: int = LONGEST) -> str:
    """``text`` as a terminal may show it, whoever wrote it: control characters escaped, and no more than can be read."""
    more = len(text) - longest
    cut = f"{text[:longest]} ... and {more:,} more characters" if more > 0 else text
    return cut if cut.isascii() and cut.isprintable() else "".join(map(_shown, cut))


def is_control(character: str) -> bool:
    """Whether a terminal, a shell or a file name takes it for something else than text, or it is half a character."""
    return unicodedata.category(character) in ("Cc", "Cs") or character in TURNED


def _shown(character: str) -> str:
    if character in KEPT or not is_control(character):
        return character
    return character.encode("unicode_escape").decode("ascii")
