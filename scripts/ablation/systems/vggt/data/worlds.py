"""Buildings and rooms covered with real photographs, and the path of someone who photographs them.

The photographs come with scikit-image (no download). Those of the demo study and those its base model is pretrained on are
two disjoint sets.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage import color, data

from ablation.systems.vggt.data.render import Texture, World

DEMO_PHOTOS = ("brick", "gravel", "grass", "chelsea", "rocket")
PRETRAINING_PHOTOS = (
    "astronaut",
    "coffee",
    "camera",
    "coins",
    "moon",
    "hubble_deep_field",
    "page",
    "text",
    "clock",
    "cell",
    "immunohistochemistry",
)
TINTS = {
    "brick": np.array([1.1, 0.72, 0.58]),
    "grass": np.array([0.7, 1.0, 0.55]),
    "gravel": np.array([1.0, 0.95, 0.88]),
}  # these three are grey


@cache
def photograph(name: str) -> NDArray[np.uint8]:
    """One of scikit-image's photographs as uint8 [H, W, 3]."""
    image = getattr(data, name)()
    if image.ndim == 2:
        image = color.gray2rgb(image)
    return np.ascontiguousarray(image[..., :3])


class Album:
    """Textures cut from photographs at random, tinted a little so that no two are alike."""

    def __init__(self, names: tuple[str, ...], rng: np.random.Generator):
        self.photos = {name: photograph(name) for name in names}
        self.rng = rng

    def texture(self, name: str | None = None, least: float = 0.5) -> Texture:
        """A crop of at least ``least`` of a photograph's sides, perhaps mirrored, with a random tint."""
        photo = self.photos[name or str(self.rng.choice(list(self.photos)))]
        height, width = (max(8, int(side * self.rng.uniform(least, 1))) for side in photo.shape[:2])
        y, x = self.rng.integers(photo.shape[0] - height + 1), self.rng.integers(photo.shape[1] - width + 1)
        crop = photo[y : y + height, x : x + width]
        if self.rng.random() < 0.5:
            crop = crop[:, ::-1]
        tint = TINTS.get(name, 1.0) * self.rng.uniform(0.92, 1.08, 3) * self.rng.uniform(0.8, 1.1)
        return Texture(np.clip(crop * tint, 0, 255))


class Palette(NamedTuple):
    """Names of the photographs that cover a building."""

    wall: str
    stone: str
    lawn: str
    windows: tuple[str, ...]


BRICK = Palette("brick", "gravel", "grass", ("chelsea", "rocket", "grass"))


def facade(album: Album, palette: Palette) -> World:
    """A street front: a wall with recessed windows, a pavement and boxes before it."""
    rng, world = album.rng, World()
    columns, rows = int(rng.integers(3, 5)), 2
    width, height, depth = rng.uniform(8, 10), rng.uniform(5, 6), rng.uniform(0.5, 0.9)
    x0, y0 = -width / 2, -height + 1.6
    cell_w, cell_h = width / columns, height / rows
    for i in range(columns):
        for j in range(rows):
            _bay(world, album, palette, x0 + i * cell_w, y0 + j * cell_h, cell_w, cell_h, depth)
    world.add([x0 - 1, 1.6, -6], [width + 2, 0, 0], [0, 0, 6 + depth], album.texture(palette.stone), 0.9)
    for _ in range(int(rng.integers(2, 4))):
        size = rng.uniform([0.4, 0.8, 0.4], [0.8, 2.2, 0.8])
        centre = np.array([rng.uniform(-0.4, 0.4) * width, 1.6 - size[1] / 2, -rng.uniform(0.8, 2.2)])
        world.add_box(centre, size, rng.uniform(0, np.pi), [album.texture() for _ in range(3)])
    return world


def _bay(world: World, album: Album, palette: Palette, x: float, y: float, w: float, h: float, depth: float) -> None:
    """One bay of a facade: four strips of wall around a window set back by ``depth``, with its reveals."""
    rng = album.rng
    ww, wh = w * rng.uniform(0.4, 0.6), h * rng.uniform(0.45, 0.6)
    wx, wy = x + (w - ww) / 2, y + (h - wh) / 2
    wall = {"texture": album.texture(palette.wall, 0.35), "shade": rng.uniform(0.85, 1.05)}
    world.add([x, y, 0], [w, 0, 0], [0, wy - y, 0], **wall)
    world.add([x, wy + wh, 0], [w, 0, 0], [0, y + h - wy - wh, 0], **wall)
    world.add([x, wy, 0], [wx - x, 0, 0], [0, wh, 0], **wall)
    world.add([wx + ww, wy, 0], [x + w - wx - ww, 0, 0], [0, wh, 0], **wall)
    world.add([wx, wy, depth], [ww, 0, 0], [0, wh, 0], album.texture(str(rng.choice(palette.windows))), 0.8)
    reveal = {"texture": album.texture(palette.stone, 0.3), "shade": 0.7}
    world.add([wx, wy, 0], [0, 0, depth], [0, wh, 0], **reveal)
    world.add([wx + ww, wy, depth], [0, 0, -depth], [0, wh, 0], **reveal)
    world.add([wx, wy, 0], [ww, 0, 0], [0, 0, depth], **reveal)
    world.add([wx, wy + wh, depth], [ww, 0, 0], [0, 0, -depth], **reveal)


def courtyard(album: Album, palette: Palette) -> World:
    """A facade and two side walls around a lawn with crates."""
    rng, world = album.rng, World()
    width, height, depth = rng.uniform(6, 8), rng.uniform(4.5, 5.5), rng.uniform(0.4, 0.7)
    y0 = -height + 1.6
    for i in range(3):
        _bay(world, album, palette, -width / 2 + i * width / 3, y0, width / 3, height, depth)
    side = rng.uniform(3.5, 5)
    for sign in (-1, 1):
        for k in range(2):
            corner = [sign * width / 2, y0, -k * side / 2]
            world.add(corner, [0, 0, -side / 2], [0, height, 0], album.texture(palette.wall, 0.4), 0.75 + 0.1 * k)
    world.add([-width / 2, 1.6, -side], [width, 0, 0], [0, 0, side], album.texture(palette.lawn, 0.6), 0.95)
    for _ in range(int(rng.integers(3, 5))):
        size = rng.uniform([0.5, 0.5, 0.5], [1.1, 1.3, 1.1])
        centre = np.array([rng.uniform(-0.35, 0.35) * width, 1.6 - size[1] / 2, -rng.uniform(0.8, 0.6 * side)])
        world.add_box(centre, size, rng.uniform(0, np.pi), [album.texture() for _ in range(3)])
    return world


def room(album: Album, palette: Palette) -> World:
    """A room from inside: walls with pictures, a floor and a ceiling, furniture along the walls."""
    rng, world = album.rng, World()
    width, height, length, floor = rng.uniform(6, 7.5), rng.uniform(3, 3.6), 8.0, 1.6
    left, top = -width / 2, floor - height
    for k in range(2):
        world.add([left + k * width / 2, top, 0], [width / 2, 0, 0], [0, height, 0], album.texture(palette.wall, 0.4))
    for side in (-1, 1):
        for k in range(3):
            corner = [side * width / 2, top, -k * length / 3]
            world.add(corner, [0, 0, -length / 3], [0, height, 0], album.texture(palette.wall, 0.4), 0.7 + 0.1 * k)
    for y, photo, shade in ((floor, palette.stone, 0.95), (top, palette.lawn, 0.8)):
        for k in range(2):
            corner = [left, y, -(k + 1) * length / 2]
            world.add(corner, [width, 0, 0], [0, 0, length / 2], album.texture(photo, 0.6), shade)
    for _ in range(int(rng.integers(2, 4))):
        size = rng.uniform(0.7, 1.3, 2)
        corner = [rng.uniform(0.9 * left, -0.9 * left - size[0]), rng.uniform(top + 0.2, 0.2 - size[1] / 2), -0.05]
        world.add(corner, [size[0], 0, 0], [0, size[1], 0], album.texture(str(rng.choice(palette.windows))))
    for _ in range(int(rng.integers(2, 5))):
        size = rng.uniform([0.5, 0.4, 0.4], [1.3, 1.1, 0.9])
        centre = np.array([rng.uniform(-0.42, 0.42) * width, floor - size[1] / 2, -rng.uniform(0.5, 2)])
        world.add_box(centre, size, rng.uniform(-0.3, 0.3), [album.texture() for _ in range(3)])
    return world


def look_at(eye, target, roll: float = 0.0) -> NDArray[np.float64]:
    """Cam-from-world [3, 4] of a camera at ``eye`` that looks at ``target``, rolled by ``roll`` radians."""
    eye, target = np.asarray(eye, float), np.asarray(target, float)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    return np.concatenate([rotation, -(rotation @ eye)[:, None]], axis=1)


def walk_past(
    rng: np.random.Generator, views: int, distance: float, span: float, target=(0.0, -0.5, 0.0)
) -> list[NDArray[np.float64]]:
    """Poses of someone walking sideways past ``target`` and photographing it."""
    poses = []
    for k in range(views):
        along = (k / max(views - 1, 1) - 0.5) * span
        eye = np.array([along, rng.uniform(-0.3, 0.3), -distance + rng.uniform(-0.3, 0.3)])
        aim = np.asarray(target) + np.array([0.35 * along, 0, 0]) + rng.uniform(-0.25, 0.25, 3)
        poses.append(look_at(eye, aim, rng.uniform(-0.04, 0.04)))
    return poses
