"""Small episodes of an ALOHA robot as real HDF5 files."""

import json
import tempfile
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ablation.systems.rdt.data.dataset import StepDataset
from ablation.systems.rdt.data.episode import INSTRUCTIONS, Episode
from ablation.systems.rdt.data.episodes import find_episodes
from ablation.systems.rdt.data.tokens import ImageTokens, TextTokens, Tokens, embed_images, embed_texts
from ablation.systems.rdt.robots import ROBOTS, VIEWS
from ablation.systems.rdt.settings import Data

HEIGHT, WIDTH = 12, 16
TEXTS = {
    "instruction": "Put the cup on the plate.",
    "simplified_instruction": ["Cup on plate."],
    "expanded_instruction": ["Take the cup with the right hand and put it on the plate.", "Lift the cup onto the plate."],
}


def motion(steps: int, still: int, seed: int, joints: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Positions and targets [steps, joints]; the first ``still`` steps differ by less than 0.01 from each other.

    Grippers are as the AgileX reads them.
    """
    rng = np.random.default_rng(seed)
    qpos = np.cumsum(rng.normal(0, 0.05, (steps, joints)), axis=0)
    qpos[:still] = rng.uniform(-0.001, 0.001, (still, joints))
    qpos[still:, 0] += 1
    action = qpos + rng.normal(0, 0.01, qpos.shape)
    qpos[:, 6::7] = np.abs(qpos[:, 6::7]).clip(0, 1) * 4.7
    qpos[-1, 6::7] = 4.7
    action[:, 6::7] = qpos[:, 6::7] / 4.7 * 11.8
    qpos[:still, 6::7] /= 1000
    return qpos.astype(np.float32), action.astype(np.float32)


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
    path: Path, steps: int = 20, still: int = 4, seed: int = 0, stored: str = "files", joints: int = 14, views=VIEWS
) -> Path:
    """An episode and the instructions of its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / INSTRUCTIONS).write_text(json.dumps(TEXTS))
    qpos, action = motion(steps, still, seed, joints)
    with h5py.File(path, "w") as file:
        file["observations/qpos"], file["action"] = qpos, action
        for number, view in enumerate(views):
            camera = ROBOTS["agilex"].cameras[view].rpartition("/")[2]
            write_images(file.require_group("observations/images"), camera, pictures(steps, 10 * seed + number), stored)
    return path


def letters(sentence: str) -> Tensor:
    """An encoder that hides nothing: a token for each letter, and one for the end."""
    return torch.tensor([*map(ord, sentence), 0])[:, None].half()


def pixels(images: Tensor) -> Tensor:
    """An encoder that hides nothing: a token for each pixel."""
    return images.flatten(2).mT.half()


def told(sample: dict[str, Tensor]) -> str:
    """The sentence of a sample that :func:`letters` encoded."""
    return "".join(chr(int(code)) for code in sample["lang_tokens"][sample["lang_mask"]][:-1, 0])


def seen(sample: dict[str, Tensor], data: Data) -> Tensor:
    """The images [history, 3, 3, S, S], uint8, of a sample that :func:`pixels` encoded."""
    size = data.image_size
    return sample["img_tokens"].view(-1, len(VIEWS), size, size, 3).permute(0, 1, 4, 2, 3).to(torch.uint8)


def shown(sample: dict[str, Tensor], data: Data) -> Tensor:
    """Which images [history, 3] are more than background."""
    background = torch.tensor(data.background)[:, None, None]
    return (seen(sample, data) != background).flatten(2).any(-1)


def cached(episodes: list[Episode], data: Data, length: int = 100) -> Tokens:
    """The embeddings of ``episodes`` by the encoders above, on disk beside the first of them."""
    text, images = (Path(tempfile.mkdtemp(dir=episodes[0].path.parent)) for _ in range(2))
    embed_texts(episodes, letters, text)
    embed_images(episodes, pixels, data, images)
    return Tokens(TextTokens(text, length), ImageTokens(images))


def dataset(root: Path, data: Data, horizon: int, history: int, train: bool) -> StepDataset:
    """The samples of all episodes below ``root``."""
    episodes = find_episodes(root, data).episodes
    return StepDataset(episodes, cached(episodes, data), data, horizon, history, train)
