"""Where a configuration model has its settings, and what somebody may have meant who wrote one elsewhere."""

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ablation.yamlfile import Location, merge

ELSEWHERE = {
    "learning_rate": "lr", "batch_size": "batch", "micro_batch_size": "batch", "per_device_train_batch_size": "batch",
    "grad_accum": "accumulation", "gradient_accumulation": "accumulation", "gradient_accumulation_steps": "accumulation",
    "max_steps": "steps", "num_epochs": "epochs", "num_train_epochs": "epochs", "dtype": "precision", "lora_rank": "rank",
    "lora_dropout": "dropout", "warmup_ratio": "warmup", "max_grad_norm": "clip", "grad_clip": "clip", "num_gpus": "gpus",
    "num_workers": "workers", "activation_checkpointing": "gradient_checkpointing", "lr_scheduler": "schedule",
}  # fmt: skip
"""What other programs call a setting."""
LIKE = 0.8  # of a name elsewhere, to be taken for a slip of the pen


class Meant(NamedTuple):
    """What somebody may have meant."""

    place: Location
    change: list[tuple[Location, Any]]
    """Values and where they belong: what was written, at ``place``, and null for what cannot stand beside it."""


def meant(model: type[BaseModel], location: Location, value: Any) -> list[Meant]:
    """What the unknown setting at ``location`` of ``value`` may be, most likely first; ``model`` takes each as it is given.

    A name that the model knows elsewhere comes before one that is spelled nearly so. A list may be one that a sweep takes.
    """
    try:
        content, written = without(value, location)
    except (LookupError, TypeError, AttributeError):
        return []  # a value that stands for a list of one, or a place among alternatives
    before = _findings(model, content)

    def takes(change: list[tuple[Location, Any]]) -> bool:
        return _findings(model, placed(content, change)) <= before

    def way(place: Location) -> list[tuple[Location, Any]] | None:
        ways = [[(place, written)], *([(place, written), (other, None)] for other in _beside(content, place))]
        if isinstance(written, list) and place[0] != "sweep" and all(takes([(place, one)]) for one in written):
            ways.append([(("sweep", ".".join(map(str, place))), written)])
        return next(filter(takes, ways), None)

    found = (
        [Meant(change[0][0], change) for change in map(way, places) if change] for places in _groups(model, location, content)
    )
    return next(filter(None, found), [])


def refused(model: type[BaseModel], location: Location, value: Any) -> Location | None:
    """Where there is a setting of the name at ``location``, or nearly of that name beside it, which does not take the value."""
    *above, name = location
    near = difflib.get_close_matches(str(name), fields_at(model, tuple(above)), n=1, cutoff=LIKE)
    return next(iter([*named(model, name, value), *((*above, one) for one in near)]), None)


def named(model: Any, name: str, value: Any = None) -> list[Location]:
    """Where ``model`` has a setting of this name, or of what other programs call so; mappings have the keys of ``value``."""
    name = ELSEWHERE.get(name, name)
    return [place for place in all_places(model, value) if place[-1] == name]


def placed(content: Any, change: Iterable[tuple[Location, Any]]) -> Any:
    """``content`` with values at their places."""
    for location, value in change:
        content = _placed(content, location, value)
    return content


def _placed(content: Any, location: Location, value: Any) -> Any:
    if not location:
        return merge(content, value)
    first, *rest = location
    if isinstance(content, list) and isinstance(first, int) and first < len(content):
        return [*content[:first], _placed(content[first], tuple(rest), value), *content[first + 1 :]]
    known = content if isinstance(content, dict) else {}
    return {**known, first: _placed(known.get(first), tuple(rest), value)}


def _beside(content: Any, place: Location) -> list[Location]:
    """The settings that are set beside ``place``."""
    for step in place[:-1]:
        content = _part(content, step)
    return [(*place[:-1], key) for key, set_ in content.items() if set_ is not None] if isinstance(content, dict) else []


def fields_at(model: Any, location: Location) -> list[str]:
    """The names of the settings that ``model`` knows at ``location``."""
    kind = model
    for step in location:
        kind = _inside(kind, step)
    return [name for one in _models(kind) for name in one.model_fields]


def field_at(model: Any, location: Location) -> FieldInfo | None:
    """The setting of ``model`` at ``location``; None where it knows none."""
    kind = model
    for step in location[:-1]:
        kind = _inside(kind, step)
    return next((one.model_fields[str(location[-1])] for one in _models(kind) if location[-1] in one.model_fields), None)


def _groups(model: Any, location: Location, content: Any) -> Iterator[list[Location]]:
    """Places to try for an unknown setting, the most likely first: its name here, or elsewhere, then names like it."""
    *above, name = location
    beside, everywhere = fields_at(model, tuple(above)), list(all_places(model, content))
    yield [(*above, known) for known in beside if known == ELSEWHERE.get(name)]
    yield [place for place in everywhere if place[-1] == ELSEWHERE.get(name, name)]
    yield [(*above, near) for near in difflib.get_close_matches(str(name), beside, n=1)]
    alike = difflib.get_close_matches(str(name), {place[-1] for place in everywhere}, n=1, cutoff=LIKE)
    yield [place for place in everywhere if place[-1] in alike]


def all_places(kind: Any, value: Any, above: Location = ()) -> Iterator[tuple[str, ...]]:
    """All settings below ``kind`` that stand in no list, those further up first."""
    inner: list[tuple[Any, Any, Location]] = []
    for model in _models(kind):
        for name, field in model.model_fields.items():
            yield (*above, name)
            inner.append((field.annotation, _part(value, name), (*above, name)))
    for member, keys in ((member, list(value)) for member in _members(kind) if _is_mapping(member, value)):
        inner += [(get_args(member)[-1], value[key], (*above, key)) for key in keys]
    for one, its_value, place in inner:
        yield from all_places(one, its_value, place)


def _is_mapping(kind: Any, value: Any) -> bool:
    return get_origin(kind) is dict and isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _part(value: Any, name: Any) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, str(name), None)


def without(value: Any, location: Location) -> tuple[Any, Any]:
    """A copy of ``value`` without what stands at ``location``, and that."""
    first, *rest = location
    if not rest:
        return {key: inner for key, inner in value.items() if key != first}, value[first]
    inner, found = without(value[first], tuple(rest))
    if isinstance(value, list):
        return [*value[:first], inner, *value[first + 1 :]], found
    return {**value, first: inner}, found


def _findings(model: type[BaseModel], content: Any) -> set[str]:
    """What is wrong with ``content``, in pydantic's words."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        return {f"{one['loc']}: {one['msg']}" for one in error.errors(include_url=False, include_input=False)}
    return set()


def _inside(kind: Any, step: str | int) -> Any:
    for member in _members(kind):
        if isinstance(member, type) and issubclass(member, BaseModel) and step in member.model_fields:
            return member.model_fields[str(step)].annotation
        if get_origin(member) in (dict, list, tuple):
            return get_args(member)[-1]
    return None


def _models(kind: Any) -> Iterable[type[BaseModel]]:
    return [member for member in _members(kind) if isinstance(member, type) and issubclass(member, BaseModel)]


def _members(kind: Any) -> list[Any]:
    """The alternatives of a union, without annotations."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for alternative in get_args(kind) for member in _members(alternative)]
    return [kind]
