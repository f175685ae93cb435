"""How each system reads a picture file, from the folder that a user gives to the pixels, or to the cause it names."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from episodes import write_episode
from picture_kinds import HEIGHT, WIDTH, Pixels, Refused, drawing, saved
from PIL import Image

from ablation.errors import UserError
from ablation.systems import opening
from ablation.systems.dit.data import images as dit_images
from ablation.systems.dit.data.listing import find_images
from ablation.systems.dit.settings import Data as DitData
from ablation.systems.hunyuan3d.data import images as hunyuan3d_images
from ablation.systems.kolors.data import images as kolors_images
from ablation.systems.kolors.data.validation import examine as examine_layouts
from ablation.systems.kolors.data.validation import laid_out
from ablation.systems.rdt.data import episode as rdt_episode
from ablation.systems.rdt.robots import ROBOTS
from ablation.systems.rdt.settings import Data as RdtData
from ablation.systems.vggt.data.eth3d import read_scene
from ablation.systems.vggt.data.layout import CALIBRATIONS, UNDISTORTED
from ablation.systems.vggt.data.view import prepare_view

NAME = "picture.png"  # whatever it is: nothing is believed that a name says
MODEL = {
    "cameras.txt": f"1 PINHOLE {WIDTH} {HEIGHT} 50 50 {WIDTH / 2} {HEIGHT / 2}\n",
    "images.txt": f"1 1 0 0 0 0 0 0 1 {NAME}\n24 20 1\n",
    "points3D.txt": "1 0 0 2 128 128 128 0.5 1 0\n",
}


def _cause(said: str) -> str:
    """The kind that a message names."""
    for kind in opening.Kind:
        if f"{kind}: " in said:
            return kind
    raise AssertionError(f"no kind of picture in {said!r}")


def prepared(folder: Path, content: bytes) -> Pixels:
    """The image of a scene's view, by a camera of the drawing's own size: the file's own pixels."""
    for name, text in MODEL.items():
        path = folder / "scene" / CALIBRATIONS[UNDISTORTED] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    images = folder / "scene/images" / UNDISTORTED
    images.mkdir(parents=True)
    (images / NAME).write_bytes(content)
    return prepare_view(read_scene(folder, "scene")[0], (HEIGHT, WIDTH), "stretch", (0.1, 100.0)).image


def vggt(folder: Path, content: bytes) -> Pixels:
    try:
        return prepared(folder, content)
    except UserError as error:
        if "camera says" in str(error):
            raise Refused("not the camera's size") from None
        raise Refused(_cause(str(error))) from None


def hunyuan3d(folder: Path, content: bytes) -> Pixels:
    path = folder / NAME
    path.write_bytes(content)
    try:
        hunyuan3d_images.conditioner_image(path, 28)
        return hunyuan3d_images.on_white(hunyuan3d_images.read_rgba(path))
    except UserError as error:
        raise Refused("no transparency" if "must be RGBA" in str(error) else _cause(str(error))) from None


def kolors(folder: Path, content: bytes) -> Pixels:
    (folder / NAME).write_bytes(content)
    row = {"image": NAME, "caption": "blocks", "boxes": [{"label": "block", "bbox": [0, 0, 500, 500]}]}
    (folder / "layouts.jsonl").write_text(json.dumps(row))
    found = examine_layouts(laid_out(folder / "layouts.jsonl"), folder)
    if found.rejected:
        raise Refused(str(found.rejected[0].fault.cause))
    pixels = np.asarray(kolors_images.read_image(folder, NAME))
    assert (found.layouts[0].width, found.layouts[0].height) == pixels.shape[1::-1]
    return pixels


def rdt(folder: Path, content: bytes) -> Pixels:
    robot = ROBOTS["agilex"].model_copy(update={"cameras": {"exterior": ROBOTS["agilex"].cameras["exterior"]}})
    data = RdtData(min_steps=2, robot=robot, jpeg="rgb")
    path = write_episode(folder / "task/episode.hdf5", steps=6, still=2, views=data.views)
    with h5py.File(path, "a") as file:
        frame = np.frombuffer(content, np.uint8)
        for step in range(6):
            file["observations/images/cam_high"][step] = frame
    examined = rdt_episode.examine(folder, path, data)
    if isinstance(examined, rdt_episode.Fault):
        assert examined.reason == rdt_episode.Reason.IMAGE
        raise Refused(_cause(examined.detail))
    with rdt_episode.recording(path, robot) as recorded:
        return recorded.image("exterior", examined.first, data.jpeg)


def dit(folder: Path, content: bytes) -> Pixels:
    for name in ("a.png", "b.png", "c.png", "d.png", NAME):
        (folder / "in/class").mkdir(parents=True, exist_ok=True)
        (folder / "in/class" / name).write_bytes(content if name == NAME else saved(Image.fromarray(drawing()), "PNG"))
    found = find_images(DitData(source="folder", root=str(folder / "in"), size=16), folder)
    if found.faults:
        raise Refused(found.faults[0].reason.removeprefix("cannot be read: "))
    return np.asarray(dit_images.read_picture(folder / "in/class" / NAME))


READERS: dict[str, Callable[[Path, bytes], Pixels]] = {
    "vggt": vggt, "hunyuan3d": hunyuan3d, "kolors": kolors, "rdt": rdt, "dit": dit,
}  # fmt: skip
MOST = {
    "vggt": f"{opening.MOST_PIXELS // 10**6} million",
    "hunyuan3d": f"{hunyuan3d_images.LARGEST} a side",
    "kolors": f"{kolors_images.MOST_PIXELS // 10**6} million",
    "rdt": f"{rdt_episode.MOST_PIXELS // 10**6} million",
    "dit": f"{opening.MOST_PIXELS // 10**6} million",
}
"""Pixels of the largest picture that is read."""
