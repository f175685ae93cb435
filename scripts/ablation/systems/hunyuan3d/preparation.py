"""Making the parts of the prepared data."""

from collections.abc import Sequence
from pathlib import Path

from ablation.parts import Part
from ablation.systems.hunyuan3d.data.sources import make_from_mesh, take_released


def prepare(part: Part, needs: Sequence[Path], out: Path) -> None:
    """``shape``: one shape in the released layout, from there or from a mesh."""
    root = Path(part.settings["root"])
    if part.settings["source"] == "meshes":
        make_from_mesh(root / f"{part.name}.ply", part.name, part.settings, out)
    else:
        take_released(root, part.name, out)
