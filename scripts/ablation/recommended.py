"""The recommended configuration of a model family: one file each under ``config/recommended/``."""

import difflib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from ablation.errors import UserError
from ablation.explain import explain, in_file
from ablation.places import field_at, fields_at
from ablation.settings import Name, Strict
from ablation.shipped import config_files
from ablation.study import AXES, Strategy, Study, Sweep, Value
from ablation.sweep import Run
from ablation.systems import SYSTEMS, settings_class
from ablation.yamlfile import load_yaml

OF_STRATEGY = tuple(name for name in Strategy.model_fields if name != "train")  # what every strategy has


class Unknown(str):
    """What stands in place of a quantity that the study does not decide: ``10 % of 20 epochs``."""


def _steps(run: Run) -> int | Unknown:
    training = run.settings.training
    return training.steps or Unknown(f"{training.epochs} epochs")


def _epochs(run: Run) -> int | Unknown:
    training = run.settings.training
    return training.epochs or Unknown(f"{training.steps} steps")


def _warmup_steps(run: Run) -> int | Unknown:
    steps, share = _steps(run), run.settings.training.warmup
    return Unknown(f"{share:.3g} of {steps}") if isinstance(steps, Unknown) else round(share * steps)


DERIVED: dict[str, Callable[[Run], int | Unknown]] = {
    "effective_batch": lambda run: run.effective_batch,  # batch x accumulation x gpus
    "steps": _steps,  # optimizer steps
    "epochs": _epochs,
    "warmup_steps": _warmup_steps,  # optimizer steps in which the learning rate rises
}
"""Quantities that follow from several settings, by name."""


class Recommendation(Strict):
    """What one parameter should be: a value, one of several, or a number within limits."""

    value: Any = None
    """The value; a parameter that is given as a plain value has it here."""
    one_of: Annotated[list[Any], Field(min_length=2)] | None = None
    """Values that are equally good, the best known first."""
    at_least: int | float | None = None
    """The lower limit, itself included."""
    at_most: int | float | None = None
    """The upper limit, itself included."""
    why: str = ""
    """The reason, or where the value holds, in a few words."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Recommendation":
        limited = self.at_least is not None or self.at_most is not None
        if ("value" in self.model_fields_set) + (self.one_of is not None) + limited != 1:
            raise ValueError("give exactly one of value, one_of, and limits (at_least, at_most, or both)")
        if None not in (self.at_least, self.at_most) and self.at_least >= self.at_most:
            raise ValueError(f"at_least = {self.at_least} must be below at_most = {self.at_most}")
        return self

    @property
    def named(self) -> list[Any]:
        """All values that it names, the limits too."""
        limits = [limit for limit in (self.at_least, self.at_most) if limit is not None]
        return self.one_of or limits or [self.value]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is as recommended."""
        if self.at_least is None and self.at_most is None:
            return value in self.named
        return (
            isinstance(value, (int, float))
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
        )

    def nearest(self, value: Any) -> Any:
        """The recommended value that is nearest to ``value``; what is no number has none near, and gets the first."""
        if self.holds(value):
            return value
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (value, *self.named))
        return min(self.named, key=lambda named: abs(named - value)) if numbers else self.named[0]


def _as_recommendation(value: Any) -> Any:
    return value if isinstance(value, dict) else {"value": value}


Parameter = Annotated[
    Recommendation,
    BeforeValidator(_as_recommendation, json_schema_input_type=Recommendation | Value | list[Value] | None),
]


class Recommended(Strict):
    """A configuration that somebody recommends for a model family."""

    system: Name
    """The model family."""
    source: str
    """Who recommends it, and where."""
    conditions: str = ""
    """What it was recommended for: data, machine, what is trained."""
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    """Parameter -> what it should be: axes, settings of strategies, derived quantities, and any dotted setting."""


@cache
def load_recommended(name: str, folder: Path) -> Recommended:
    """The file ``name`` of ``folder``. Raises :class:`UserError` naming file, line and key."""
    known = config_files(folder)
    if name not in known:
        path = folder / f"{name}.yaml"
        raise UserError(f"recommended: there is no file {path}{_near(name, known)}\n  known: {', '.join(known) or 'none'}")
    path = known[name]
    content, where = load_yaml(path), in_file(path)
    try:
        found = Recommended.model_validate(content)
    except ValidationError as error:
        raise UserError(explain(error, Recommended, content, where)) from None
    if found.system not in SYSTEMS:
        raise UserError(f"{where(('system',))}system = {found.system!r}: no such system\n  known: {', '.join(SYSTEMS)}")
    for parameter, recommendation in found.parameters.items():
        try:
            _check(found.system, parameter, recommendation)
        except ValueError as error:
            raise UserError(f"{where(('parameters', parameter))}{parameter}: {error}") from None
    return found


def recommended_for(study: Study, folder: Path) -> Recommended | None:
    """What ``study`` is to be compared with; None where it names nothing. Raises :class:`UserError`."""
    if study.recommended is None:
        return None
    found = load_recommended(study.recommended, folder)
    if found.system != study.system:
        raise UserError(f"recommended: {study.recommended} is for the system {found.system}; the study's is {study.system}")
    return found


def _check(system: str, parameter: str, recommendation: Recommendation) -> None:
    """Raise ValueError where there is no such parameter, or it cannot have such a value."""
    kind = _kind(system, parameter)
    for value in recommendation.named:
        try:
            kind.validate_python([value])
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise ValueError(f"cannot be {value!r}: {problem[0].lower()}{problem[1:]}") from None


def _kind(system: str, parameter: str) -> TypeAdapter:
    """Lists of what ``parameter`` can be."""
    if parameter in AXES:
        return TypeAdapter(_annotated(Sweep.model_fields[parameter]))
    if parameter in DERIVED:
        return TypeAdapter(list[PositiveInt])
    if parameter in OF_STRATEGY:
        return TypeAdapter(list[_annotated(Strategy.model_fields[parameter])])
    location = tuple(parameter.split("."))
    model = Study if location[0] == "strategies" else settings_class(system)
    for depth in range(len(location)):
        known = fields_at(model, location[:depth])
        if known and location[depth] not in known:
            others = [] if depth else [*AXES, *DERIVED, *OF_STRATEGY, "strategies"]
            raise ValueError(f"the system {system} has no such setting{_near(location[depth], [*others, *known])}")
    field, inside = field_at(model, location), fields_at(model, location)
    if field is None or inside or len(location) == 1:
        raise ValueError(f"is not the dotted name of a plain value{'; in it are ' + ', '.join(inside) if inside else ''}")
    return TypeAdapter(list[_annotated(field)])


def _annotated(field: FieldInfo) -> Any:
    """The type of a setting with its limits."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
