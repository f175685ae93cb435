"""Published numbers that a study checks, as they stand in a file of ``config/claims/``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from ablation.errors import UserError
from ablation.explain import did_you_mean, explain, in_file
from ablation.expression import Expression
from ablation.settings import Name, Strict
from ablation.shipped import config_files
from ablation.study import Value
from ablation.yamlfile import load_yaml

TOLERANCE = 0.1

Text = Annotated[str, Field(min_length=1)]
Outcome = Literal["fits", "tight", "oom"]


class Moment(Strict):
    """A moment of the training; one of the two."""

    step: PositiveInt | None = None
    """An optimizer step, from 1."""
    epoch: Annotated[float, Field(ge=0)] | None = None
    """Passes over the training data; 0 is the first step."""

    @model_validator(mode="after")
    def _one(self) -> "Moment":
        if (self.step is None) == (self.epoch is None):
            raise ValueError("give exactly one of step and epoch")
        return self


class Claim(Strict):
    """One published number, or what was said of a card. Give `quantity` with `value` or bounds, `outcome`, or `unchecked`."""

    says: Text
    """What was published, in a short sentence."""
    quantity: Text | None = None
    """What the number is of: a quantity of a cell, a metric of the system, or one of its facts; see docs/study.md."""
    where: dict[str, Value] = {}
    """The cells that it is about: values of axes or dotted settings; for a fact, what the fact is of."""
    against: Annotated[dict[str, Value], Field(min_length=1)] | Literal["pretrained"] | None = None
    """Makes it a ratio: to the cell that differs in these values alone, or to the pretrained model."""
    at: Moment | None = None
    """When the loss is meant; left out, at the end: the mean of the last tenth."""
    value: float | str | None = None
    """The number in the quantity's unit, or a formula over the names in `where`."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Relative difference to `value` up to which it is confirmed; left out, 0.1."""
    at_least: float | None = None
    """In place of `value`: the least it may be."""
    at_most: float | None = None
    """In place of `value`: the most it may be; with `at_least`, a range."""
    outcome: Outcome | None = None
    """What is said to become of the cells on `card`: fits, tight (with at most a tenth to spare), oom."""
    card: Name | None = None
    """The card it was published for: a file of config/hardware/; left out, the file's."""
    source: Text | None = None
    """Where it was published; left out, the file's."""
    unchecked: Text | None = None
    """Why the workflow cannot check it; its verdict is then "not comparable"."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Claim":
        kinds = [name for name in ("quantity", "outcome", "unchecked") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"give exactly one of quantity, outcome and unchecked, not {' and '.join(kinds) or 'none'}")
        numbers = [name for name in ("value", "at_least", "at_most") if getattr(self, name) is not None]
        if self.quantity is None and (stray := [*numbers, *self._set("against", "at", "tolerance")]):
            raise ValueError(f"{stray[0]} needs a quantity")
        if self.quantity is not None and (not numbers or ("value" in numbers and len(numbers) > 1)):
            raise ValueError("quantity needs either value, or at_least, at_most or both")
        if self.tolerance is not None and self.value is None:
            raise ValueError("tolerance needs a value; bounds hold exactly")
        if None not in (self.at_least, self.at_most) and self.at_least > self.at_most:
            raise ValueError(f"at_least = {self.at_least:g} is above at_most = {self.at_most:g}")
        if self.at is not None and self.quantity != "loss":
            raise ValueError("at says when, and goes with quantity: loss")
        return self

    @model_validator(mode="after")
    def _formula(self) -> "Claim":
        if isinstance(self.value, str):
            try:
                unknown = sorted(Expression(self.value).names - set(self.where))
            except UserError as error:
                raise ValueError(f"value: {error}") from None
            if unknown:
                raise ValueError(f"value: the formula `{self.value}` names {', '.join(unknown)}, which is not in where")
        return self

    def _set(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    def claimed(self) -> float | None:
        """The number itself; None where there are only bounds."""
        return Expression(self.value).number(self.where) if isinstance(self.value, str) else self.value

    def holds(self, ours: float) -> bool:
        """Whether ``ours`` confirms it."""
        if (claimed := self.claimed()) is not None:
            return abs(ours - claimed) <= (TOLERANCE if self.tolerance is None else self.tolerance) * abs(claimed)
        return (self.at_least is None or ours >= self.at_least) and (self.at_most is None or ours <= self.at_most)


class ClaimsFile(Strict):
    """A file of claims; its source and card are those of every claim that names none."""

    source: Text
    """Where the numbers were published."""
    card: Name | None = None
    """The card they were published for: a file of config/hardware/."""
    claims: Annotated[dict[Name, Claim], Field(min_length=1)]
    """The claims by name."""

    def filled(self) -> dict[str, Claim]:
        """The claims with the file's source and card in place."""
        return {
            name: claim.model_copy(update={"source": claim.source or self.source, "card": claim.card or self.card})
            for name, claim in self.claims.items()
        }


def claims_path(name: str, folder: Path) -> Path:
    """The file of the claims ``name``. Raises :class:`UserError` with the names there are."""
    known = config_files(folder)
    if name not in known:
        path = folder / f"{name}.yaml"
        raise UserError(f"claims: there is no file {path}{did_you_mean(name, known)}\n  known: {', '.join(known) or 'none'}")
    return known[name]


def load_claims(path: Path) -> dict[str, Claim]:
    """The claims of a file. Raises :class:`UserError` that names file, line and key."""
    content = load_yaml(path)
    try:
        return ClaimsFile.model_validate(content).filled()
    except ValidationError as error:
        raise UserError(explain(error, ClaimsFile, content, in_file(path))) from None
