"""Small episodes of an ALOHA robot as real HDF5 files."""

import json
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from ablation.systems.rdt.data.episode import INSTRUCTIONS
from ablation.systems.rdt.settings import CAMERAS

HEIGHT, WIDTH = 12, 16
TEXTS = {
    "instruction": "Put the cup on the plate.",
    "simplified_instruction": ["Cup on plate."],
    "expanded_instruction": ["Take the cup with the right hand and put it on the plate.", "Lift the cup onto the plate."],
}


def motion(steps: int, still: int, seed: int, joints: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Positions and targets [steps, joints]; the first ``still`` steps differ by less than 0.01 from each other."""
    rng = np.random.default_rng(seed)
    qpos = np.cumsum(rng.normal(0, 0.05, (steps, joints)), axis=0)
    qpos[:still] = rng.uniform(-0.001, 0.001, (still, joints))
    qpos[still:, 0] += 1
    return qpos.astype(np.float32), (qpos + rng.normal(0, 0.01, qpos.shape)).astype(np.float32)


def pictures(steps: int, seed: int) -> np.ndarray:
    """Random images in one colour each [steps, H, W, 3]."""
    colours = np.random.default_rng(seed).integers(0, 255, (steps, 1, 1, 3), np.uint8)
    return np.broadcast_to(colours, (steps, HEIGHT, WIDTH, 3)).copy()


def jpeg(image: np.ndarray) -> bytes:
    """The image as ALOHA's recorder writes it: red and blue swapped."""
    buffer = BytesIO()
    Image.fromarray(image[..., ::-1]).save(buffer, format="JPEG", quality=98, subsampling=0)
    return buffer.getvalue()


def write_images(group: h5py.Group, camera: str, images: np.ndarray, stored: str) -> None:
    """``stored``: raw pixels, files of variable length, files padded with zeros, or fixed byte strings."""
    if stored == "raw":
        group[camera] = images
        return
    files = [jpeg(image) for image in images]
    longest = max(map(len, files))
    if stored == "padded":
        group[camera] = np.stack([np.frombuffer(file.ljust(longest, b"\0"), np.uint8) for file in files])
    elif stored == "strings":
        group[camera] = np.array(files, f"S{longest}")
    else:
        dataset = group.create_dataset(camera, len(files), h5py.vlen_dtype(np.uint8))
        for step, file in enumerate(files):
            dataset[step] = np.frombuffer(file, np.uint8)


def write_episode(
    path: Path, steps: int = 20, still: int = 4, seed: int = 0, stored: str = "files", joints: int = 14, cameras=CAMERAS
) -> Path:
    """An episode and the instructions of its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / INSTRUCTIONS).write_text(json.dumps(TEXTS))
    qpos, action = motion(steps, still, seed, joints)
    with h5py.File(path, "w") as file:
        file["observations/qpos"], file["action"] = qpos, action
        for number, camera in enumerate(cameras):
            write_images(file.require_group("observations/images"), camera, pictures(steps, 10 * seed + number), stored)
    return path
