"""The model families. Adding one is adding a folder, a study and a line here."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
