"""In what two records differ, in words and by how much."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablation.errors import UserError
from ablation.formats import KEY

ANOTHER = ("seconds", KEY)  # columns of a history: the one is another each time, the other another with each version
FAR = math.inf


class Finding(NamedTuple):
    """One thing that was compared."""

    what: str
    said: str = ""
    """In what the two differ; nothing where they are equal bit by bit."""
    apart: float | None = 0.0
    """The largest relative difference of its numbers; infinite where that is no question of how much, None where the bits are
    all that is known."""


def compare_values(what: str, one: Any, two: Any) -> Finding:
    """Nested plain data, number by number."""
    a, b = (flat(value) if isinstance(value, dict) else {what: value} for value in (one, two))
    different = [key for key in dict.fromkeys([*a, *b]) if not same(a.get(key), b.get(key))]
    if not different:
        return Finding(what)
    found = [(f"{key}: {unequal(a.get(key), b.get(key))}", relative(a.get(key), b.get(key))) for key in different]
    return Finding(what, f"{len(different)} of {len(a)}, {_first_and_furthest(found)}", max(apart for _, apart in found))


def compare_histories(what: str, one: Path, two: Path) -> Finding:
    """The first step that differs and the one that does most. A column's numbers are weighed against its largest."""
    first, second = _history(one), _history(two)
    if len(first) != len(second):
        return Finding(what, f"{len(first)} steps then, {len(second)} now", FAR)
    found: list[tuple[str, float]] = []
    largest: dict[str, float] = {}
    for row in first:
        for name, text in row.items():
            largest[name] = max(largest.get(name, 0.0), abs(_number(text) or 0.0))
    for number, (a, b) in enumerate(zip(first, second, strict=True), start=1):
        for name in dict.fromkeys([*a, *b]):
            if a.get(name) != b.get(name):
                said = f"at step {a.get('step', number)}, {name}: {unequal(a.get(name), b.get(name))}"
                found.append((said, relative(a.get(name), b.get(name), largest.get(name, 0.0))))
    return Finding(what, _first_and_furthest(found), max(apart for _, apart in found)) if found else Finding(what)


def compare_files(what: str, one: Mapping[str, Any], two: Mapping[str, Any], apart: float | None) -> Finding:
    """Files by name with their hashes."""
    unequal_ones = [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]
    return Finding(what, f"{', '.join(unequal_ones)} not the same bytes", apart) if unequal_ones else Finding(what)


def _first_and_furthest(found: Sequence[tuple[str, float]]) -> str:
    """Of differences in words, each with how far it is: where rounding alone parts two runs, the first says little."""
    first, furthest = found[0][0], max(found, key=lambda one: one[1])[0]
    return f"first {first}" + (f"; furthest {furthest}" if furthest != first else "")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary with dotted names."""
    if not isinstance(value, (dict, list)):
        return {prefix: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for key, inner in pairs for name, leaf in flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


def same(one: Any, two: Any) -> bool:
    """Equal, and of one kind; a number that is none is equal to itself."""
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one) and math.isnan(two):
        return True
    return one == two and isinstance(one, bool) == isinstance(two, bool)


def unequal(one: Any, two: Any, names: Sequence[str] = ("then", "now")) -> str:
    """Both values, and for numbers their relative difference."""
    apart = relative(one, two)
    return f"{one} {names[0]}, {two} {names[1]}" + (f" ({apart:.1e} relative)" if math.isfinite(apart) else "")


def relative(one: Any, two: Any, scale: float = 0.0) -> float:
    """How far two numbers are apart, against the larger of them or ``scale``; infinite for what is not two numbers."""
    a, b = _number(one), _number(two)
    if a is None or b is None:
        return FAR
    size = max(abs(a), abs(b), scale)
    return abs(a - b) / size if size else 0.0


def _number(value: Any) -> float | None:
    """A finite number, also as text."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _history(path: Path) -> list[dict[str, str]]:
    """Numbers as they are printed, which is exact."""
    if not path.is_file():
        raise UserError(f"{path}: is gone, so there is nothing to compare")
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: text for name, text in row.items() if name not in ANOTHER} for row in csv.DictReader(file)]
