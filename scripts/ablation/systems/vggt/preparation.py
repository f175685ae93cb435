"""Making the parts of the prepared data."""

from collections.abc import Sequence
from pathlib import Path

from ablation.parts import Part


def prepare(part: Part, needs: Sequence[Path], out: Path) -> None:
    """``capture``: make a scene of the demo; ``scene``: read a scene at the size it is trained at."""
    if part.stage == "capture":
        from ablation.systems.vggt.data.capture import capture

        capture(part.name, out)
    else:
        from ablation.systems.vggt.data.making import prepare_scene

        root = needs[0] if needs else Path(part.settings["root"])
        prepare_scene(root, part.name, part.settings, out)
