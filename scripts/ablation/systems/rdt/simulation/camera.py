"""What the robot's cameras see, by casting a ray through each pixel: needs no graphics card and no OpenGL."""

from functools import cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.robots import View
from ablation.systems.rdt.simulation.world import World

CAMERAS: dict[View, str] = {"exterior": "cam_high", "right_wrist": "cam_right_wrist"}
"""Those of a robot with only the right arm, as robot.xml names them."""
HEIGHT, WIDTH = 48, 64
SKY = (0.82, 0.87, 0.92)
LIGHT = np.array([0.4, 0.3, 0.85]) / np.linalg.norm([0.4, 0.3, 0.85])
"""Towards the lamp."""
AMBIENT = 0.45
"""What a face turned away from the lamp has of its colour."""

Pictures = dict[View, NDArray[np.uint8]]
"""What each camera sees [H, W, 3], RGB."""


def pictures(world: World) -> Pictures:
    """What all cameras see now."""
    return {view: picture(world, view) for view in CAMERAS}


def picture(world: World, view: View) -> NDArray[np.uint8]:
    """What the camera of ``view`` sees now [H, W, 3], RGB."""
    model, data, camera = world.model, world.data, CAMERAS[view]
    eye = data.camera(camera)
    rays = directions(float(model.camera(camera).fovy[0])) @ eye.xmat.reshape(3, 3).T
    geoms, distances, normals = np.empty(len(rays), np.int32), np.empty(len(rays)), np.empty(rays.shape)
    mujoco.mj_multiRay(
        model, data, eye.xpos, rays.ravel(), None, True, -1, geoms, distances, normals.ravel(), len(rays), mujoco.mjMAXVAL
    )
    lit = AMBIENT + (1 - AMBIENT) * np.maximum(normals @ LIGHT, 0)
    colours = np.where((geoms >= 0)[:, None], model.geom_rgba[geoms, :3] * lit[:, None], SKY)
    return (colours * 255).round().astype(np.uint8).reshape(HEIGHT, WIDTH, 3)


@cache
def directions(fovy: float) -> NDArray[np.float64]:
    """Unit rays through the pixels' middles [H * W, 3], row by row from the top left, of a camera that looks along -z."""
    focal = HEIGHT / 2 / np.tan(np.radians(fovy) / 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(columns - WIDTH / 2) / focal, (HEIGHT / 2 - rows) / focal, -np.ones_like(rows)], axis=-1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
