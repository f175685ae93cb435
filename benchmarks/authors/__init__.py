"""Training steps as the authors of three systems wrote them, from a checkout of their code that the user has."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

from recording import ROOT  # noqa: F401  (which finds the library)
from torch import Tensor, nn

from ablation.errors import UserError
from ablation.settings import Settings


class Authors(Protocol):
    """What is asked of a module here, for the ``settings`` of a run."""

    REPOSITORY: str
    """Where the code is published."""

    FILES: Sequence[str]
    """Files of the checkout, by which it is known."""

    def imports(folder: Path) -> None:
        """Make the code importable, and import what a step needs. Raises ModuleNotFoundError."""
        ...

    def build(settings: Settings) -> nn.Module:
        """Their network with fresh weights, on the current default device; names of parameters as in the release."""
        ...

    def blocks(model: nn.Module) -> Sequence[nn.Module]:
        """What is recomputed where ours recomputes and their code does not do so by itself."""
        ...

    def loss(model: nn.Module, settings: Settings, batch: dict[str, Tensor]) -> Tensor:
        """The scalar that their trainer goes backward from; ``batch`` is ours."""
        ...


def opened(system: str, folder: Path) -> Authors:
    """The authors' code of ``system`` in ``folder``, imported. Raises :class:`UserError` in one line."""
    authors = import_module(f"authors.{system}")
    if lacking := [name for name in authors.FILES if not (folder / name).is_file()]:
        raise UserError(f"{folder} is no checkout of {authors.REPOSITORY}: it lacks {lacking[0]}")
    try:
        authors.imports(folder)
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise UserError(f"the code of {authors.REPOSITORY} imports {package}, which is not installed") from None
    return authors


def first_on_path(*folders: Path) -> None:
    """Import from ``folders`` before anything else."""
    sys.path[:0] = [str(folder) for folder in folders]


def bare_package(name: str, folder: Path) -> None:
    """The package ``name`` in ``folder`` without what its ``__init__`` imports: of a large one, a part that needs less."""
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
