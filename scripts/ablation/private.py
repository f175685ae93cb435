"""What leaves this machine says nothing of how its folders are called: paths outside the project are replaced in all texts."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

OUTSIDE = ("/", "~", "..")  # how a path begins that leaves the project
STAND_IN = "elsewhere"
HOMES = re.compile(r"(?<![\w.~-])(?:/(?:home|Users)/[^/\s\"'<>:,;]+|/root(?![\w.-]))")


class Private:
    """The paths outside the project that ``settings`` (nested, plain) name, and what stands for each: ``elsewhere/NAME``.

    Home folders become ``~`` and the project's own folder ``.``, wherever they appear. A link or a folder ``elsewhere`` in the
    project makes the settings work again on another machine.
    """

    def __init__(self, settings: Any):
        self.stand_ins: dict[str, str] = {}
        for path in sorted(set(_paths(settings))):
            name, number = PurePosixPath(path).name, 1
            while (stand_in := f"{STAND_IN}{'' if number == 1 else f'-{number}'}/{name}") in self.stand_ins.values():
                number += 1
            self.stand_ins[path] = stand_in
        known = self.stand_ins | {str(Path.cwd()): ".", str(Path.home()): "~"}
        longest_first = sorted((path for path in known if len(PurePosixPath(path).parts) > 1), key=len, reverse=True)
        self._known = known
        either = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._pattern = re.compile(rf"(?<![\w.~-])(?:{either})(?![\w-])")

    def text(self, text: str) -> str:
        """``text`` with all of them replaced."""
        return HOMES.sub("~", self._pattern.sub(lambda found: self._known[found[0]], text))

    def value(self, value: Any) -> Any:
        """Nested plain data with the texts in it replaced."""
        if isinstance(value, dict):
            return {name: self.value(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _paths(inner)
    elif isinstance(value, str) and value.startswith(OUTSIDE) and len(PurePosixPath(value).parts) > 1:
        yield value
