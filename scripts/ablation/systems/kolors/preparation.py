"""Making the parts of the prepared data."""

from collections.abc import Sequence
from pathlib import Path

from ablation.parts import Part
from ablation.systems.kolors.data.collages import write_collages
from ablation.systems.kolors.data.conventions import FAMILIES, GIVEN
from ablation.systems.kolors.data.labeller import Labeller
from ablation.systems.kolors.data.labelling import ANSWERS, label_shard, read_answers
from ablation.systems.kolors.data.latents import load_vae, write_latents
from ablation.systems.kolors.data.layouts import LAYOUTS, image_root, read_layouts, write_layouts
from ablation.systems.kolors.data.quality import write_quality
from ablation.systems.kolors.data.validation import Found, examine, labelled, laid_out
from ablation.systems.released import encoder_device


def prepare(part: Part, needs: Sequence[Path], out: Path) -> None:
    """``labels``: a share of the answers; ``layouts``: what of them can be used; ``latents`` of their pictures."""
    {"labels": _labels, "layouts": _layouts, "latents": _latents}[part.stage](part, needs, out)


def _labels(part: Part, needs: Sequence[Path], out: Path) -> None:
    s = part.settings

    def load() -> Labeller:
        return Labeller(Path(s["labeller"]), encoder_device(), FAMILIES[s.get("convention", "qwen2-vl")])

    label_shard(Path(s["table"]), Path(s["root"]), s["shard"], s["shards"], load, out)


def _layouts(part: Part, needs: Sequence[Path], out: Path) -> None:
    s = part.settings
    if part.name == "collages":
        write_collages(Path(s["photographs"]), out, s["count"], s["seed"], s["size"])
        _write(examine(laid_out(out / LAYOUTS), out), "the workflow's collages", None, out)
        return
    root = Path(s["root"])
    if part.name == "labelled":
        answers = {image: answer for need in needs for image, answer in read_answers(need / ANSWERS).items()}
        convention = FAMILIES[s.get("convention", "qwen2-vl")]
        _write(examine(labelled(Path(s["table"]), answers), root, convention), s["table"], root, out)
    else:
        _write(examine(laid_out(Path(s["layouts"])), root, GIVEN[s.get("convention")]), s["layouts"], root, out)


def _write(found: Found, about: str, root: Path | None, out: Path) -> None:
    write_quality(found, about, out)
    write_layouts(found.layouts, root, out)


def _latents(part: Part, needs: Sequence[Path], out: Path) -> None:
    s, (listed,) = part.settings, needs
    write_latents(read_layouts(listed), image_root(listed), load_vae(Path(s["vae"]), encoder_device()), s["resolution"], out)
