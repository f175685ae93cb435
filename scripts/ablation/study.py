"""The study: one YAML file, one ablation. Its model, and how a file and the command line become one."""

import difflib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from ablation.errors import UserError
from ablation.explain import at, did_you_mean, explain, in_file
from ablation.patterns import touches
from ablation.places import named
from ablation.settings import NAME, Name, Precision, Scale, Settings, Size, Strict
from ablation.shipped import config_files
from ablation.systems import SYSTEMS, settings_class
from ablation.yamlfile import Location, line_of, load_yaml, merge, resolve_strings

Value = bool | int | FiniteFloat | Annotated[str, Field(max_length=1000)]
Distributed = Literal["ddp", "zero2", "zero3"]
Backward = Literal["each", "summed"]
Optimizer = Literal["adamw", "adamw8bit"]
TrainedWeights = Literal["fp32", "bf16"]
FrozenWeights = Literal["int8", "nf4"]
Cell = dict[str, Any]  # axis -> value; None where the axis has no meaning

AXES = ("strategy", "rank", "batch", "accumulation", "precision", "gpus", "seed")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, bool, int, float)) else value


def _distinct(values: list[Any]) -> list[Any]:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value!r} stands twice; that would be a duplicate run")
        seen.add(value)
    return values


class Train(Strict):
    """What a strategy trains: adapters on some modules, or some modules themselves."""

    lora: Annotated[list[str], Field(min_length=1)] | None = None
    """Modules that get LoRA adapters: dotted names, `*` for any name part, `12-23` for a range; all that lie below count."""
    full: Annotated[list[str], Field(min_length=1)] | None = None
    """Modules trained in full; same patterns."""

    @model_validator(mode="after")
    def _one(self) -> "Train":
        if (self.lora is None) == (self.full is None):
            raise ValueError("give exactly one of lora and full")
        return self

    @property
    def patterns(self) -> list[str]:
        """What is trained, in either way."""
        return self.lora or self.full


def _lean(kind: Any, usual: Any) -> Any:
    """A field that says nothing where it has its usual value: runs from before there was such a field stay the same."""
    return Annotated[kind, Field(exclude_if=lambda value: value == usual)]


class Strategy(Strict):
    """A named bundle: what is trained, how memory is saved, and its learning rate."""

    train: Train
    """What is trained."""
    lr: PositiveFloat
    """Peak learning rate."""
    gradient_checkpointing: bool | Annotated[int, Field(ge=1)] | Literal["auto"] = False
    """Recompute activations in the backward pass: of all blocks, of the last so many, or `auto`, of as few as fit the card."""
    host: Annotated[list[str], Field(min_length=1)] | None = None
    """Modules that, where frozen, stay in host memory and are copied to the GPU when they compute; patterns as in `train`."""
    backward: Backward = "each"
    """Of several objectives: `each` goes backward before the next is built; `summed`, one pass holds the graphs of all."""
    distributed: Distributed = "ddp"
    """What several GPUs share of one model: `ddp` nothing, `zero2` gradients and optimizer, `zero3` the weights too."""
    offload: bool = False
    """Optimizer state in host memory; needs zero2 or zero3."""
    optimizer: _lean(Optimizer, "adamw") = "adamw"
    """`adamw`, or `adamw8bit`: its two moments take one byte each for a trained weight in place of four."""
    trained_weights: _lean(TrainedWeights, "fp32") = "fp32"
    """What trained weights are held in: `fp32`, or `bf16`, each update rounded up or down by chance; needs adamw8bit."""
    frozen_weights: FrozenWeights | None = None
    """`int8` or `nf4`: linear layers that are not trained are held in 8 or 4 bits, not in the compute type."""
    fused_backward: _lean(bool, False) = False
    """Step each weight when its gradient is there, and forget that: no step has all; needs training.clip: null."""

    @model_validator(mode="after")
    def _possible(self) -> "Strategy":
        if self.offload and self.distributed == "ddp":
            raise ValueError("offload needs distributed: zero2 or zero3; ddp keeps the optimizer's state on the GPU")
        own = {
            "optimizer: adamw8bit": self.optimizer != "adamw",
            "frozen_weights": self.frozen_weights is not None,
            "host": self.host is not None,
            "fused_backward": self.fused_backward,
        }
        if self.distributed != "ddp" and (set_ := [name for name, value in own.items() if value]):
            raise ValueError(f"{set_[0]} needs distributed: ddp; {self.distributed} shares out what it would change")
        if self.host and self.frozen_weights:
            raise ValueError("host and frozen_weights are two ways to hold frozen weights; give one of them")
        if self.trained_weights == "bf16" and self.optimizer != "adamw8bit":
            raise ValueError(
                "trained_weights: bf16 needs optimizer: adamw8bit, which rounds so that small updates are not lost"
            )
        return self


def _one_or_more(kind: Any, *rules: Any) -> Any:
    """A list of ``kind``; a single value stands for a list of one."""
    return Annotated[list[kind], *rules, BeforeValidator(_as_list, json_schema_input_type=list[kind] | kind)]


def _axis(kind: Any) -> Any:
    return _one_or_more(kind, Field(min_length=1), AfterValidator(_distinct))


class Sweep(BaseModel):
    """The axes. Beside those named here, any dotted setting of the study can be one: `training.clip: [0.5, 1.0]`."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)
    __pydantic_extra__: dict[str, _axis(Value)] = Field(init=False)

    strategy: _axis(Name) | None = None
    """Names of strategies; all when left out."""
    rank: _axis(Annotated[int, Field(ge=1, le=100_000)]) = [16]
    """LoRA rank; without meaning for strategies that train no adapters."""
    batch: _axis(Size) = [1]
    """Samples a GPU and forward pass."""
    accumulation: _axis(Size) = [1]
    """Forward passes an optimizer step."""
    precision: _axis(Precision) = ["bf16"]
    """fp32, tf32, bf16 or fp16 (with loss scaling)."""
    gpus: _axis(Annotated[int, Field(ge=1, le=1024)]) = [1]
    """GPUs a run."""
    seed: _axis(Annotated[int, Field(ge=0, lt=2**32)]) = [0]
    """Seeds; each is a run of its cell."""

    @model_validator(mode="after")
    def _not_empty(self) -> "Sweep":
        if not self.model_fields_set and not self.model_extra:
            raise ValueError("is empty; name at least one axis, such as rank: [8, 16]")
        return self


class Study(Settings):
    """One ablation: settings shared by its runs, the strategies, and the sweep."""

    strategies: Annotated[dict[Name, Strategy], Field(min_length=1)]
    """The strategies by name."""
    sweep: Sweep
    """The axes of the sweep."""
    keep: _one_or_more(str) = []
    """Constraints that every combination must meet, such as `batch * accumulation * gpus == 8`."""
    exclude: list[dict[str, Value | list[Value]]] = []
    """Combinations to leave out: every axis named must match."""
    include: list[dict[str, Value]] = []
    """Combinations to add; axes that an entry does not name take all their values."""
    claims: Name | None = None
    """Published numbers to check: a file of config/claims/."""
    baseline: dict[str, Value] | None = None
    """The cell that the others are compared with; where it leaves axes open, each with the one of its own values there."""
    recommended: Name | None = None
    """A file of config/recommended/ that the study is compared with, parameter by parameter."""

    @model_validator(mode="after")
    def _names_exist(self) -> "Study":
        _known("sweep.strategy", self.sweep.strategy or [], self.strategies)
        axes = (*AXES, *(self.sweep.model_extra or {}))
        for axis in self.sweep.model_extra or {}:
            _check_setting(self, axis)
        entries = [(f"{key}[{i}]", entry) for key in ("exclude", "include") for i, entry in enumerate(getattr(self, key))]
        for label, entry in [*entries, ("baseline", self.baseline or {})]:
            _known(label, entry, axes)
            if not entry and label != "baseline":
                raise ValueError(f"{label} is empty")
            _known(f"{label}.strategy", _as_list(entry.get("strategy", [])), self.strategies)
            if not label.startswith("exclude"):
                _check_values(label, entry)
        for name, strategy in self.strategies.items():
            _check_patterns(f"strategies.{name}", strategy, self.networks)
        return self

    @property
    def settings(self) -> Settings:
        """The part that runs share, as the system's own class."""
        kind = settings_class(self.system)
        return kind.model_construct(**{name: getattr(self, name) for name in kind.model_fields})

    def with_values(self, values: Mapping[str, Value]) -> tuple[Settings, dict[str, Strategy]]:
        """Settings and strategies with dotted settings replaced, checked again."""
        content = self.model_dump(mode="json", exclude={"keep", "exclude", "include", "baseline"}, exclude_unset=True)
        for axis, value in values.items():
            change: Any = value
            for step in reversed(axis.split(".")):
                change = {step: change}
            content = merge(content, change)
        content["sweep"] = {"seed": 0}
        try:
            study = type(self).model_validate(content)
        except ValidationError as error:
            raise UserError(explain(error, type(self), content, lambda _: "sweep: ")) from None
        return study.settings, study.strategies

    def value_of(self, axis: str) -> Any:
        """The study's own value of a dotted setting."""
        value: Any = self
        for step in axis.split("."):
            value = value[step] if isinstance(value, dict) else getattr(value, step)
        return value


def _known(label: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"{label}: {name!r} is not known{hint} (known: {', '.join(map(str, known))})")


def _check_values(label: str, entry: Mapping[str, Value]) -> None:
    """What an entry says of the named axes must be what the sweep may say of them."""
    for axis in set(entry) & set(AXES) - {"strategy"}:
        try:
            Sweep(**{axis: [entry[axis]]})
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise ValueError(f"{label}.{axis} = {entry[axis]!r}: {problem[0].lower()}{problem[1:]}") from None


def _check_patterns(label: str, strategy: Strategy, networks: tuple[str, ...]) -> None:
    """The first names of patterns, without torch; the rest, for which the network is built, the plan checks first of all."""
    patterns = {"train.lora": strategy.train.lora, "train.full": strategy.train.full, "host": strategy.host}
    for key, pattern in ((key, pattern) for key, several in patterns.items() for pattern in several or ()):
        if networks and not any(touches(name, pattern) for name in networks):
            hint = did_you_mean(pattern.split(".")[0], networks)
            raise ValueError(f"{label}.{key}: the network has no {pattern!r}{hint} (known: {', '.join(networks)})")


def _check_setting(study: Study, axis: str) -> None:
    """An axis beyond the named ones must be the dotted path of a setting with a plain value."""
    value: Any = study
    steps = axis.split(".")
    for number, step in enumerate(steps):
        fields = (
            list(value) if isinstance(value, dict) else list(type(value).model_fields) if isinstance(value, BaseModel) else []
        )
        if step not in fields:
            like = difflib.get_close_matches(step, [*AXES, *fields] if value is study else fields)
            near = [".".join([*steps[:number], name, *steps[number + 1 :]]) for name in like]
            raise ValueError(f"sweep.{axis}: no such axis or setting{_axis_meant(study, axis, near)}")
        value = value[step] if isinstance(value, dict) else getattr(value, step)
    if "." not in axis or isinstance(value, (BaseModel, dict)):
        raise ValueError(
            f"sweep.{axis}: an axis is one of {', '.join(AXES)}, or the dotted name of a setting with a plain value"
        )


def _axis_meant(study: Study, axis: str, near: list[str]) -> str:
    """``; did you mean AXIS?`` for one with the last name of ``axis``, or one that is ``near``, if it takes the values."""
    values = (study.sweep.model_extra or {})[axis]
    places = [".".join(place).removeprefix("sweep.") for place in named(type(study), axis.rpartition(".")[2], study)]
    return next((f"; did you mean {other}?" for other in [*places, *near] if _takes(study, other, values)), "")


def _takes(study: Study, axis: str, values: list[Value]) -> bool:
    try:
        if axis in AXES:
            Sweep(**{axis: values})
            return axis != "strategy" or set(values) <= set(study.strategies)
        is_plain = "." in axis and not isinstance(study.value_of(axis), (BaseModel, dict))
        return is_plain and all(study.with_values({axis: value}) for value in values)
    except (ValueError, UserError, LookupError, AttributeError):
        return False


@cache
def study_model(system: str) -> type[Study]:
    """The study model of a system: the shared fields and the system's own."""
    return type("Study", (Study, settings_class(system)), {"__doc__": Study.__doc__})


def load_study(path: Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """The study of a file with ``overrides`` (nested) laid over it, the part for its scale first.

    Raises :class:`UserError` that names file, line, key and value.
    """
    overrides = resolve_strings(dict(overrides or {}))
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a study is a mapping of keys to values")
    scales = content.pop("scales", None) or {}
    scale = overrides.get("scale", content.get("scale", "demo"))
    if (
        not isinstance(scales, dict)
        or not set(scales) <= set(get_args(Scale))
        or not all(isinstance(part, dict | None) for part in scales.values())
    ):
        raise UserError(
            f"{path}: scales: takes the keys {', '.join(get_args(Scale))}, each with the settings that differ at that scale"
        )
    merged = merge(merge(content, scales.get(scale) or {}) if isinstance(scale, str) else content, overrides)
    where = _Where(path, scale, overrides)
    system = merged.get("system")
    if not isinstance(system, str) or system not in SYSTEMS:
        problem = "is missing" if system is None else f"= {system!r}: no such system"
        raise UserError(f"{where(('system',))}system {problem}\n  known: {', '.join(SYSTEMS)}")
    model = study_model(system)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise UserError(explain(error, model, merged, where)) from None


class _Where:
    """Names the place of a location: the command line, the scale's part of the file, or the file."""

    def __init__(self, path: Path, scale: Any, overrides: Mapping[str, Any]):
        self.path, self.scale, self.overrides, self.in_file = path, scale, overrides, in_file(path)

    def __call__(self, location: Location) -> str:
        if location and at(self.overrides, location) is not None:
            return "--config: "
        of_scale = ("scales", self.scale, *location)
        return self.in_file(of_scale if line_of(self.path, of_scale) else location)


def find_studies(names: Any, folder: Path) -> dict[str, Path]:
    """Study name -> file, for a name or a list of names of files in ``folder``. Raises :class:`UserError`."""
    if isinstance(names, str):
        names = [names]
    known = config_files(folder)
    if not isinstance(names, list) or not names:
        raise UserError(f"studies: give a name or a list of names; known: {', '.join(known) or 'none'}")
    found: dict[str, Path] = {}
    for name in names:
        if name in known and not re.fullmatch(NAME, name):
            raise UserError(
                f"studies: {folder}: {name!r} cannot be the name of a study; take letters, digits, '_', '.' and '-'"
            )
        if name not in known:
            several = [near for part in str(name).split(",") for near in difflib.get_close_matches(part.strip(), known, n=1)]
            listed = len(several) == str(name).count(",") + 1 > 1
            hint = f"; write 'studies=[{', '.join(several)}]'" if listed else did_you_mean(name, known)
            raise UserError(
                f"studies: there is no study {name!r}{hint}\n  known: {', '.join(known) or 'none'} (files of {folder})"
            )
        found[name] = known[name]
    return found


def study_file(text: str, folder: Path) -> Path:
    """The file of a study that is named, or given by its path. Raises :class:`UserError` for one that there is not."""
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise UserError(f"{path}: there is no such study file")
        return path
    return find_studies(text, folder)[text]
