"""Pictures of a sampled shape beside the true one, as the same cameras see them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ablation.systems.hunyuan3d.data.images import on_white, read_rgba
from ablation.systems.hunyuan3d.data.render import View, render
from ablation.systems.hunyuan3d.mesh import Mesh

SIDE, HEAD = 192, 16  # pixels: of a picture, and of the words above it


def save_panel(path: Path, seen: Path, other: Path, cameras: dict[str, View], made: Mesh | None) -> None:
    """The picture ``seen`` that the shape was sampled from, and ``other`` of its sides: the true one beside the sampled."""
    tiles = []
    for words, picture in (("seen", seen), ("another side", other)):
        tiles += [(words, _true(picture)), ("sampled", _sampled(made, cameras[picture.name]))]
    panel = Image.new("RGB", (SIDE * len(tiles), SIDE + HEAD), "white")
    for number, (words, image) in enumerate(tiles):
        panel.paste(image, (number * SIDE, HEAD))
        ImageDraw.Draw(panel).text((number * SIDE + 4, 2), words, fill="black")
    panel.save(path)


def _true(picture: Path) -> Image.Image:
    return _image(read_rgba(picture)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _sampled(mesh: Mesh | None, camera: View) -> Image.Image:
    """The mesh as ``camera`` sees it; a grey field where there is none."""
    if mesh is None:
        return Image.new("RGB", (SIDE, SIDE), "lightgrey")
    return _image(render(mesh, camera, SIDE))


def _image(rgba: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(on_white(rgba))
