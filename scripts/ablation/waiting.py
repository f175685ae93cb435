"""What a program says on stderr while somebody waits for it: what it does, and now and then how far it is."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

EVERY_SECONDS = 10.0

Item = TypeVar("Item")


def say(text: str) -> None:
    """A line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def followed(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    """``items`` as they come, with a bar on a terminal; elsewhere, as in a log, with a line each ten seconds.

    What takes less than that says nothing of itself.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, what, total, unit=unit, leave=False, mininterval=0.5)
        return
    started = told = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told >= EVERY_SECONDS and number < total:
            told = now
            say(f"{what}: {number} of {total}, {_rough((now - started) / number * (total - number))} to go")


def _rough(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
