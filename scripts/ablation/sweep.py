"""From a study to its runs: the product of the axes, what ``keep`` and ``exclude`` leave of it, and what ``include`` adds."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ablation.canonical import canonical, short_hash
from ablation.errors import UserError
from ablation.expression import Expression
from ablation.settings import Settings
from ablation.study import AXES, Cell, Strategy, Study, Value
from ablation.systems import settings_class

MOST_COMBINATIONS = 100_000  # of the axes, before `keep` and `exclude`
MOST_RUNS = 10_000  # Snakemake takes 15 s to look at so many

CHANGES_NOTHING_FROZEN = {
    *("train", "lr", "gradient_checkpointing", "host", "backward"),
    *("optimizer", "trained_weights", "fused_backward"),
}  # of a strategy
_CUTS: dict[tuple[int, int], tuple[Settings, Strategy, int | None]] = {}  # holds what its keys are the ids of
NOT_OF_TRAINING = {"title", "evaluation", "compute"}  # settings whose change retrains nothing


@dataclass(frozen=True)
class Run:
    """One cell of the sweep with one seed, and everything that was decided for it."""

    id: str
    study: str
    axes: Cell
    strategy: Strategy
    settings: Settings

    @property
    def rank(self) -> int | None:
        """LoRA rank; None where the strategy trains no adapters."""
        return self.axes["rank"]

    @property
    def cell(self) -> Cell:
        """The axes without the seed."""
        return {name: value for name, value in self.axes.items() if name != "seed"}

    @cached_property
    def cell_id(self) -> str:
        """The same id for all seeds of the cell."""
        return _identity(self.cell)

    @property
    def in_one_process(self) -> bool:
        """Whether it is trained by a single process, which nothing is shared with."""
        return self.axes["gpus"] == 1 and self.strategy.distributed == "ddp"

    @property
    def effective_batch(self) -> int:
        """Samples an optimizer step: batch x accumulation x gpus."""
        return self.axes["batch"] * self.axes["accumulation"] * self.axes["gpus"]

    @cached_property
    def base(self) -> str:
        """Names the evaluation of the pretrained model that the run is compared with; runs that share it have one."""
        settings = self.settings.model_dump(mode="json", include={"system", "data", "model", "evaluation"})
        precision, version = self.axes["precision"], self.settings.network_version()
        corrected = [version] if version > 1 else []
        return f"{precision}-{short_hash([settings, precision, *corrected])}"

    @cached_property
    def prefix_cut(self) -> int | None:
        """How far what is frozen reaches, if it computes as it was released: not compiled, in parts or in other formats."""
        key = id(self.settings), id(self.strategy)
        if key not in _CUTS:
            unusual = self.strategy.model_dump(exclude_defaults=True).keys() - CHANGES_NOTHING_FROZEN
            plain = not unusual and not self.settings.training.compile
            _CUTS[key] = self.settings, self.strategy, self.settings.prefix_cut(self.strategy.train.patterns) if plain else None
        return _CUTS[key][-1]

    @cached_property
    def prefix(self) -> str | None:
        """Names the outputs of frozen parts that the run shares with others of its study; None where it has no such part."""
        return None if self.prefix_cut is None else f"{self.axes['precision']}-{self.settings.inputs_hash}"

    @property
    def objective(self) -> int:
        """The version of what it minimises."""
        return self.settings.objective(self.strategy.train.patterns)

    @cached_property
    def training_view(self) -> dict[str, Any]:
        """All that training depends on, as plain data: the content of ``run.yaml``."""
        corrected = {"objective": self.objective} if self.objective > 1 else {}
        return {
            "id": self.id,
            "study": self.study,
            "axes": self.axes,
            "strategy": self.strategy.model_dump(mode="json", exclude_none=True),
            "settings": self.settings.model_dump(mode="json", exclude=NOT_OF_TRAINING),
            **corrected,
        }

    @property
    def left_to_card(self) -> bool:
        """Whether it is the study's card that says how much is recomputed."""
        return self.strategy.gradient_checkpointing == "auto"

    def recomputing(self, how: bool | int) -> "Run":
        """The same run with all blocks recomputed, none, or the last ``how``."""
        return replace(self, strategy=self.strategy.model_copy(update={"gradient_checkpointing": how}))

    def with_axes(self, **values: Value | None) -> "Run":
        """The same run with other values on some of the named axes."""
        axes = {**self.axes, **values}
        return replace(self, id=_identity(axes), axes=axes)

    @classmethod
    def from_view(cls, view: Mapping[str, Any]) -> "Run":
        """The run of a ``training_view``; settings that training does not know take their defaults."""
        kind, told = settings_class(view["settings"]["system"]), view["settings"]
        if kind.released_average is not None and told["training"].get("ema"):
            told = {**told, "training": {"ema_warmup": True, **told["training"]}}  # left out before it followed the release
        settings = kind.model_validate(told)
        return cls(view["id"], view["study"], dict(view["axes"]), Strategy.model_validate(view["strategy"]), settings)


def expand(study: Study, name: str) -> list[Run]:
    """The runs of a study, in the order of its axes. Raises :class:`UserError` when there is none or one stands twice."""
    try:
        return _expand(study, name)
    except UserError as error:
        raise UserError(f"study {name}: {error}") from None


def one_per_cell(runs: Sequence[Run]) -> list[Run]:
    """The first run of each cell, whatever the seeds of the others."""
    return list({canonical(run.cell): run for run in reversed(runs)}.values())[::-1]


def all_axes(study: Study, run: Run) -> Cell:
    """The axes of ``run``; of a dotted one that it does not change, the study's own value."""
    swept = [*(study.sweep.model_extra or {}), *(axis for entry in study.include for axis in entry)]
    dotted = dict.fromkeys(axis for axis in swept if axis not in AXES)
    return {**run.axes, **{axis: _value(study, run, axis) for axis in dotted}}


def _value(study: Study, run: Run, axis: str) -> Value | None:
    of_another = axis.startswith("strategies.") and not axis.startswith(f"strategies.{run.axes['strategy']}.")
    return None if of_another else run.axes.get(axis, study.value_of(axis))


def _expand(study: Study, name: str) -> list[Run]:
    axes = _axes(study)
    _check_size(study, axes)
    cells = [_collapse(study, cell) for cell in _kept(study, axes)]
    unique = list({canonical(cell): cell for cell in cells}.values())
    if len(unique) > MOST_RUNS:
        raise UserError(f"the sweep has {len(unique):,} runs; at most {MOST_RUNS:,} are sent")
    resolve = _Resolver(study)
    runs = [_run(resolve, name, cell) for cell in unique]
    seen = {run.id for run in runs}
    for index, entry in enumerate(study.include):
        for cell in _product({**axes, **{axis: [value] for axis, value in entry.items()}}):
            run = _run(resolve, name, _collapse(study, cell))
            if run.id in seen:
                raise UserError(f"include[{index}]: the run {run.id} is in the sweep already")
            seen.add(run.id)
            runs.append(run)
    if not runs:
        raise UserError(_nothing_left(study, axes))
    return runs


def _check_size(study: Study, axes: Mapping[str, list[Value]]) -> None:
    """Before anything is multiplied out."""
    count = math.prod(map(len, axes.values()))
    if count > MOST_COMBINATIONS:
        sizes = " x ".join(f"{len(values)} {axis}" for axis, values in axes.items() if len(values) > 1)
        raise UserError(f"the sweep has {count:,} combinations ({sizes}); at most {MOST_COMBINATIONS:,} are looked at")
    added = sum(math.prod(len(values) for axis, values in axes.items() if axis not in entry) for entry in study.include)
    if added > MOST_RUNS:
        raise UserError(f"include: adds {added:,} runs; at most {MOST_RUNS:,} are sent")


def _axes(study: Study) -> dict[str, list[Value]]:
    """All axes with their values: the named ones in fixed order, the dotted settings, the seed."""
    sweep = study.sweep
    named = {axis: list(getattr(sweep, axis)) for axis in AXES if axis not in ("strategy", "seed")}
    dotted = {axis: list(values) for axis, values in (sweep.model_extra or {}).items()}
    return {"strategy": list(sweep.strategy or study.strategies), **named, **dotted, "seed": list(sweep.seed)}


def _product(axes: Mapping[str, list[Value]]) -> Iterator[Cell]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _kept(study: Study, axes: Mapping[str, list[Value]]) -> Iterator[Cell]:
    """Combinations that meet every ``keep`` and match no ``exclude``."""
    constraints = [_constraint(text) for text in study.keep]
    for constraint in constraints:
        if unknown := sorted(constraint.names - set(axes)):
            raise UserError(
                f"keep: `{constraint.text}` names {', '.join(unknown)}, which is no axis; axes are {', '.join(axes)}"
            )
    used = [False] * len(study.exclude)
    for cell in _product(axes):
        matches = [_matches(entry, cell) for entry in study.exclude]
        used = [was or now for was, now in zip(used, matches, strict=True)]
        if not any(matches) and all(constraint(cell) for constraint in constraints):
            yield cell
    for index, was_used in enumerate(used):
        if not was_used:
            raise UserError(f"exclude[{index}]: {_shown(study.exclude[index])} matches no combination of the sweep")


def _constraint(text: str) -> Expression:
    try:
        return Expression(text)
    except UserError as error:
        raise UserError(f"keep: {error}") from None


def _matches(entry: Mapping[str, Value | list[Value]], cell: Cell) -> bool:
    return all(cell[axis] in (value if isinstance(value, list) else [value]) for axis, value in entry.items())


def _collapse(study: Study, cell: Cell) -> Cell:
    """``cell`` with None on every axis that has no meaning for its strategy."""
    name = cell["strategy"]
    trains_adapters = study.strategies[name].train.lora is not None

    def meaningful(axis: str) -> bool:
        if axis == "rank":
            return trains_adapters
        return not axis.startswith("strategies.") or axis.startswith(f"strategies.{name}.")

    return {axis: value if meaningful(axis) else None for axis, value in cell.items()}


class _Resolver:
    """Settings for the dotted axes of a cell; runs with equal values share one object."""

    def __init__(self, study: Study):
        self.study = study
        self._known: dict[str, tuple[Settings, dict[str, Strategy]]] = {canonical({}): (study.settings, study.strategies)}

    def changed(self, cell: Cell) -> Cell:
        """The dotted settings of ``cell`` that differ from the study's: adding an axis keeps the runs there are."""
        dotted = {axis: value for axis, value in cell.items() if axis not in AXES and value is not None}
        return {axis: value for axis, value in dotted.items() if value != self.study.value_of(axis)}

    def __call__(self, changes: Cell) -> tuple[Settings, dict[str, Strategy]]:
        key = canonical(changes)
        if key not in self._known:
            self._known[key] = self.study.with_values(changes)
        return self._known[key]


def _run(resolve: _Resolver, name: str, cell: Cell) -> Run:
    changes = resolve.changed(cell)
    settings, strategies = resolve(changes)
    axes = {**{axis: value for axis, value in cell.items() if axis in AXES}, **changes}
    if axes["gpus"] % (nodes := settings.compute.nodes):
        raise UserError(f"sweep.gpus: {axes['gpus']} GPUs cannot be spread evenly over compute.nodes: {nodes}")
    return Run(_identity(axes), name, axes, strategies[cell["strategy"]], settings)


def _identity(axes: Cell) -> str:
    """A readable slug and a short hash, such as ``A-r16-b1x8-bf16-s0-1f3a9c2e``."""
    return f"{slug(axes)}-{short_hash(axes)}"


def slug(axes: Cell) -> str:
    """Readable words for a run or, where ``axes`` hold no seed, for a cell; not unique."""
    words = [str(axes["strategy"])]
    if axes["rank"] is not None:
        words.append(f"r{axes['rank']}")
    words += [f"b{axes['batch']}x{axes['accumulation']}", str(axes["precision"])]
    if axes["gpus"] != 1:
        words.append(f"g{axes['gpus']}")
    words += [f"{axis.rsplit('.', 1)[-1]}{value}" for axis, value in axes.items() if axis not in AXES]
    if "seed" in axes:
        words.append(f"s{axes['seed']}")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words))[:80]


def _nothing_left(study: Study, axes: Mapping[str, list[Value]]) -> str:
    """Why no combination remains: how many each rule alone would keep."""
    cells = list(_product(axes))
    lines = [f"the sweep has {len(cells)} combination(s) and its rules leave none"]
    for text in study.keep:
        lines.append(f"  keep `{text}` alone leaves {sum(map(Expression(text), cells))}")
    for entry in study.exclude:
        lines.append(f"  exclude {_shown(entry)} alone leaves {sum(not _matches(entry, cell) for cell in cells)}")
    return "\n".join(lines)


def _shown(entry: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}"
