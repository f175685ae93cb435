"""What differs between the settings and inputs of two trainings, in the words of the study file."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ablation.sweep import NOT_OF_TRAINING

MISSING = "nothing"
OBJECTIVE = "training objective (version)"


class Change(NamedTuple):
    """A setting by its dotted name in the study file, or an input, with its value before and now."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} {_shown(self.before)} -> {_shown(self.now)}"

    @property
    def swept(self) -> str | None:
        """The sweep that keeps the results of both values; None where no sweep can."""
        plain = all(isinstance(value, int | float | str) and value != MISSING for value in (self.before, self.now))
        return f"sweep: {{{self.name}: [{_shown(self.before)}, {_shown(self.now)}]}}" if plain and "." in self.name else None


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The settings that differ, and the version of the objective.

    Each mapping has ``axes``, ``strategy`` and ``settings``, as a manifest and ``run.yaml`` do, and may have ``objective``.
    """
    old, new = _named(before), _named(now)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [Change(name, old.get(name, MISSING), new.get(name, MISSING)) for name in names]


def changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The weights and data whose content differs; what is not there ``now`` (None) is not known to differ."""
    pairs = [
        (kind, name, before.get(kind, {}).get(name, MISSING), content)
        for kind in ("weights", "data")
        for name, content in now.get(kind, {}).items()
        if content is not None
    ]
    return [Change(f"{kind} ({name})", _digest(old), _digest(new)) for kind, name, old, new in pairs if old != new]


def of_training(changes: list[Change]) -> list[Change]:
    """Those for which a run is trained again."""
    return [change for change in changes if change.name.partition(".")[0] not in NOT_OF_TRAINING]


def of_results(changes: list[Change]) -> list[Change]:
    """Those for which a run is trained or evaluated again: all but the machine's share."""
    return [change for change in changes if change.name.partition(".")[0] != "compute"]


def _named(view: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as the study file has them: those of the strategy stand under ``strategies.<name>``."""
    strategy = view["axes"].get("strategy")
    return {
        **dict(_flat(f"strategies.{strategy}", view["strategy"])),
        **dict(_flat("", view["settings"])),
        **dict(_flat("axes", view["axes"])),
        OBJECTIVE: view.get("objective", 1),
    }


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
    elif value is not None:
        yield prefix, value


def _digest(content: Any) -> str:
    """Content by a few digits of its hash, or of the hashes of its files."""
    if isinstance(content, Mapping):
        return ", ".join(str(one.get("sha256") if isinstance(one, Mapping) else one)[:8] for one in content.values())
    return str(content)[:8]


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
