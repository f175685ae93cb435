"""The cards a study can be for: one file each under ``config/hardware/``."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, ValidationError, model_validator

from ablation.errors import UserError
from ablation.explain import did_you_mean, explain, in_file
from ablation.settings import Precision, Strict
from ablation.shipped import config_files
from ablation.yamlfile import load_yaml

OLDEST = 8.0  # compute capability from which on attention takes the kernels that are modelled


class Card(Strict):
    """A GPU, as its maker describes it."""

    name: str
    """The maker's name."""
    memory_gib: PositiveFloat
    """Memory of the card in GiB, as nvidia-smi shows it."""
    usable_gib: Annotated[float, Field(gt=0.5)]
    """What CUDA reports as the device's total, in GiB: the capacity in PyTorch's out-of-memory messages."""
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d$")]
    """CUDA compute capability, such as "8.9"."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    """What it can train in."""
    fp8: bool
    """Whether its tensor cores compute in FP8."""
    source: str
    """Where these numbers are from."""

    @model_validator(mode="after")
    def _modelled(self) -> "Card":
        if self.usable_gib > self.memory_gib:
            raise ValueError(f"usable_gib ({self.usable_gib:g}) is more than memory_gib ({self.memory_gib:g})")
        if float(self.compute_capability) < OLDEST:
            raise ValueError(f"cards of a compute capability below {OLDEST} are not modelled")
        return self


@cache
def load_card(name: str, folder: Path) -> Card:
    """The card ``name`` of ``folder``. Raises :class:`UserError` with the names there are."""
    known = config_files(folder)
    if name not in known:
        hint, new = did_you_mean(name, known), folder / f"{name}.yaml"
        raise UserError(
            f"hardware: {name} is not a known card{hint}\n  known: {', '.join(known)}\n  a new card is a new file {new}"
        )
    path = known[name]
    content = load_yaml(path)
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        raise UserError(explain(error, Card, content, in_file(path))) from None


def load_cards(folder: Path) -> dict[str, Card]:
    """All cards of ``folder`` by name, the smallest first."""
    cards = {path.stem: load_card(path.stem, folder) for path in config_files(folder).values()}
    return dict(sorted(cards.items(), key=lambda pair: pair[1].usable_gib))
