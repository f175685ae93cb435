"""Demonstrations of the expert, as ALOHA's recorder writes episodes."""

import json
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ablation.systems.rdt.data.episode import INSTRUCTIONS
from ablation.systems.rdt.robots import ROBOTS
from ablation.systems.rdt.simulation.camera import CAMERAS, Pictures, pictures
from ablation.systems.rdt.simulation.expert import plan
from ablation.systems.rdt.simulation.task import HOLD, Side, instructions
from ablation.systems.rdt.simulation.world import World

ROBOT = ROBOTS["one_arm"]


def record_episodes(out: Path, side: Side, seed: int, count: int) -> list[Path]:
    """The episodes 0 to ``count`` - 1 of ``seed`` as ``out``/<colour>/episode_<number>.hdf5, with their instructions."""
    world = World(side)
    folder = out / world.colour
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INSTRUCTIONS).write_text(json.dumps(instructions(world.colour), indent=1) + "\n", encoding="utf-8")
    return [_record(out, world, seed, number) for number in tqdm(range(count), desc="recording episodes", disable=None)]


def _record(out: Path, world: World, seed: int, number: int) -> Path:
    """One episode: the expert's motion, and then as long as the hand must stay."""
    world.reset(seed, number)
    planned = plan(world)
    actions = np.vstack([planned, np.repeat(planned[-1:], HOLD, axis=0)]).astype(np.float32)
    qpos: list[NDArray] = []
    seen: list[Pictures] = []
    for action in actions:
        qpos.append(world.qpos)
        seen.append(pictures(world))
        world.step(action)
    if not world.success:
        raise RuntimeError(f"{world.side}, seed {seed}: the expert failed in episode {number}")
    path = out / world.colour / f"episode_{number}.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = True
        file[ROBOT.state.key], file[ROBOT.action.key] = np.array(qpos, np.float32), actions
        for view in CAMERAS:
            dataset = file.create_dataset(ROBOT.cameras[view], len(seen), h5py.vlen_dtype(np.uint8))
            for step, images in enumerate(seen):
                dataset[step] = np.frombuffer(_jpeg(images[view]), np.uint8)
    return path


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    """The image as ALOHA's recorder writes it: red and blue swapped."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
