"""The modules of a network that patterns (:mod:`ablation.patterns`) stand for."""

import difflib
from collections.abc import Callable, Iterable

from torch import nn

from ablation.errors import UserError
from ablation.patterns import below

ADAPTABLE = (nn.Linear, nn.Conv2d)  # what PEFT's LoRA supports here; it refuses transposed convolutions


def adaptable_modules(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Names of the linear and convolution layers that the patterns stand for, in model order."""
    return _matching(model, patterns, lambda module: isinstance(module, ADAPTABLE), "linear or convolution layer")


def modules(model: nn.Module, patterns: Iterable[str], key: str = "train") -> list[str]:
    """Names of the modules with parameters of their own that the patterns of a strategy's ``key`` stand for, in model order."""

    def has_own(module: nn.Module) -> bool:
        return next(module.parameters(recurse=False), None) is not None

    return _matching(model, patterns, has_own, "module with parameters", key)


def _matching(
    model: nn.Module, patterns: Iterable[str], wanted: Callable[[nn.Module], bool], what: str, key: str = "train"
) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    candidates = [name for name, module in model.named_modules() if name and wanted(module)]
    chosen: set[str] = set()
    for pattern in patterns:
        found = [name for name in candidates if below(name, pattern)]
        if not found:
            raise UserError(f"{key}: the pattern `{pattern}` matches no {what} of the model{_near(pattern, names)}")
        chosen.update(found)
    return [name for name in candidates if name in chosen]


def _near(pattern: str, names: list[str]) -> str:
    """The longest start of ``pattern`` that exists, and what the model has in place of the rest."""
    steps = pattern.split(".")
    for good in range(len(steps), -1, -1):
        start = ".".join(steps[:good])
        if good == 0 or any(below(name, start) for name in names):
            break
    if good == len(steps):
        return ": all that lies there is of another kind"
    here = sorted(
        {name.split(".")[good] for name in names if (good == 0 or below(name, start)) and name.count(".") >= good},
        key=_natural,
    )
    near = difflib.get_close_matches(steps[good], here, n=3)
    place = f"below `{start}`" if start else "at the top"
    listed = ", ".join(here if len(here) <= 12 else [*here[:5], "...", here[-1]])
    return f"; did you mean {' or '.join(near)}?" if near else f"; {place} there are: {listed}"


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdigit() else (1, 0, text)
