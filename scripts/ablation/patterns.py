"""Patterns that name modules by their dotted paths: ``aggregator.frame_blocks.12-23``, ``depth_head.*``. No torch here.

The steps of a pattern are names, ``*`` globs, or ranges of numbers. It stands for the modules at that path and everything below
them.
"""

import re
from fnmatch import fnmatchcase


def below(name: str, pattern: str) -> bool:
    """Whether ``name`` lies at or below the path ``pattern``."""
    return name.count(".") >= pattern.count(".") and touches(name, pattern)


def touches(name: str, pattern: str) -> bool:
    """Whether ``pattern`` can stand for something at, below or above ``name``."""
    return all(_step(part, step) for part, step in zip(name.split("."), pattern.split("."), strict=False))


def _step(part: str, step: str) -> bool:
    if numbers := re.fullmatch(r"(\d+)-(\d+)", step):
        return part.isdigit() and int(numbers[1]) <= int(part) <= int(numbers[2])
    return fnmatchcase(part, step)
