"""The model families. Adding one is adding a folder, a study and a line here."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ablation.parts import Part
    from ablation.settings import Settings
    from ablation.systems.base import System

SYSTEMS = {name: f"ablation.systems.{name}" for name in ("dit", "hunyuan3d", "kolors", "rdt", "vggt")}


def settings_class(system: str) -> type["Settings"]:
    """The settings of a system: light to import, so that Snakemake can read studies without torch."""
    return import_module(f"{SYSTEMS[system]}.settings").SystemSettings


def system_class(system: str) -> type["System"]:
    """The class of a system. Imports torch."""
    return import_module(f"{SYSTEMS[system]}.system").System


def load_system(settings: "Settings") -> "System":
    """The system that ``settings`` describe."""
    return system_class(settings.system)(settings)


def prepare(system: str, part: "Part", needs: Sequence[Path], out: Path) -> None:
    """Make one part of a system's prepared data in the folder ``out``; only what that takes is loaded."""
    import_module(f"{SYSTEMS[system]}.preparation").prepare(part, needs, out)
