"""Pydantic's findings as messages for people: file, line, key, value, what is allowed, the nearest spelling."""

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ablation.places import fields_at, meant, refused
from ablation.yamlfile import Location, dump_yaml, line_of, merge

MAX_PROBLEMS = 8
MAX_PLACES = 3

_WORDING = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list, such as [1, 2]",
    "tuple_type": "must be a list, such as [1, 2]",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
    "string_pattern_mismatch": "may hold letters, digits, '_', '.' and '-' only, and starts with a letter or digit",
    "too_short": "needs at least {min_length} value(s)",
    "too_long": "takes at most {max_length} value(s)",
}


Where = Callable[[Location], str]


def in_file(path: Path) -> Where:
    """Says ``path:line: `` for a location in the YAML file ``path``."""

    def where(location: Location) -> str:
        while location:
            if line := line_of(path, location):
                return f"{path}:{line}: "
            location = location[:-1]
        return f"{path}: "

    return where


def explain(error: ValidationError, model: type[BaseModel], value: Any, where: Where) -> str:
    """All findings of ``error`` as one text. ``value``: what was validated; ``where`` names the place of a location."""
    findings = error.errors(include_url=False, include_input=False)
    lines = [_finding(finding, model, value, where) for finding in findings[:MAX_PROBLEMS]]
    if len(findings) > MAX_PROBLEMS:
        lines.append(f"... and {len(findings) - MAX_PROBLEMS} more")
    return "\n".join(lines)


def _finding(finding: Any, model: type[BaseModel], value: Any, where: Where) -> str:
    location: Location = finding["loc"]
    context = finding.get("ctx", {})
    if finding["type"] == "value_error" and not location:  # a check across fields, whose message names the key
        message = str(context["error"])
        return f"{where(_leading_key(message))}{message}"
    head = f"{where(location)}{dotted(location) or 'the file'}"
    if finding["type"] == "extra_forbidden":
        return f"{head}: no such setting{_nearest(model, location, value)}"
    if finding["type"] == "value_error":
        return f"{head}: {context['error']}"
    shown = "" if finding["type"] == "missing" else _shown(value, location)
    wording = _WORDING.get(finding["type"])
    text = wording.format(**context) if wording else finding["msg"]
    return f"{head}{shown}: {text}{_nearest_value(finding, value, location)}"


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """``; did you mean NAME?`` for the known name that is near; nothing where none is."""
    near = difflib.get_close_matches(str(name), [str(other) for other in known], n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _leading_key(message: str) -> Location:
    """``data.split.test: ...`` as a location, an axis of the sweep whole; empty when the message names no key."""
    key = re.match(r"[A-Za-z_][\w.]*(?=[:\[])", message)
    return tuple(key[0].split(".", 1 if key[0].startswith("sweep.") else -1)) if key else ()


def dotted(location: Location) -> str:
    """``("sweep", "rank", 1)`` as ``sweep.rank[1]``."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def at(value: Any, location: Location) -> Any:
    """The part of ``value`` at ``location``; None where there is none."""
    for step in location:
        if isinstance(step, int) and not isinstance(value, (list, tuple)):
            return value  # a single value stands for a list of one
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _shown(value: Any, location: Location) -> str:
    text = repr(at(value, location))
    return f" = {text if len(text) <= 60 else text[:57] + '...'}"


def _nearest_value(finding: Any, value: Any, location: Location) -> str:
    given = at(value, location)
    if finding["type"] != "literal_error" or not isinstance(given, str):
        return ""
    allowed = [word.strip("' ") for word in finding["ctx"]["expected"].replace(" or ", ", ").split(",")]
    return did_you_mean(given, allowed)


def _nearest(model: type[BaseModel], location: Location, value: Any) -> str:
    """Where an unknown key may belong, with the corrected YAML; else the known keys beside it."""
    places = meant(model, location, value)
    if not places:
        known, place = fields_at(model, location[:-1]), refused(model, location, value)
        hint = f"; there is {dotted(place)}, which does not take{_shown(value, location).replace(' =', '')}" if place else ""
        return hint + (f"\n  known here: {', '.join(sorted(known))}" if known else "")
    corrected: Any = None
    for place, its_value in places[0].change:
        for step in reversed(place):
            its_value = [its_value] if isinstance(step, int) else {step: its_value}
        corrected = merge(corrected, its_value)
    indented = "".join(f"    {line}\n" for line in dump_yaml(corrected).splitlines()).rstrip()
    *others, last = [_beside(one.place, location) for one in places[:MAX_PLACES]]
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?\n  corrected:\n{indented}"


def _beside(place: Location, location: Location) -> str:
    """A place as it is named to somebody who is at ``location``."""
    return str(place[-1]) if place[:-1] == location[:-1] else dotted(place)
