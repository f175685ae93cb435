"""Making the parts of the prepared data."""

from collections.abc import Sequence
from pathlib import Path

from ablation.parts import Part
from ablation.systems.newsystem.data import make_waves


def prepare(part: Part, needs: Sequence[Path], out: Path) -> None:
    """``waves``: make them."""
    make_waves(part.settings["waves"], part.settings["length"], out)
