"""Pretrain the demo's small VGGT on rendered worlds, and write its weights (fp16 safetensors).

The committed ``resources/vggt-demo.safetensors`` came from ``make pretrain`` (50 minutes on two CPU cores). The demo study's
photographs are kept out of these worlds, so that fine-tuning has something to learn.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ablation.cli import call
from ablation.study import load_study
from ablation.systems.vggt.data.render import Film, World
from ablation.systems.vggt.data.worlds import PRETRAINING_PHOTOS, Album, Palette, courtyard, facade, walk_past
from ablation.systems.vggt.geometry import normalise, unproject
from ablation.systems.vggt.losses import camera_loss, depth_loss, value_loss
from ablation.systems.vggt.model.vggt import VGGT

STUDY = Path(__file__).parent.parent / "config/studies/vggt-eth3d.yaml"
VIEWS, FRAMES = 6, 4  # rendered of each world; seen at once
DEPTH_RANGE = (0.1, 100.0)
FIELD_OF_VIEW = (38.0, 76.0)  # degrees, horizontal
COLOUR_CAST, GREY = 0.2, 0.15  # strength; probability


def build(rng: np.random.Generator) -> World:
    """A facade or a courtyard, covered with photographs at random."""
    make = (facade, courtyard)[rng.integers(2)]
    wall, stone, lawn = (str(name) for name in rng.choice(PRETRAINING_PHOTOS, 3))
    return make(Album(PRETRAINING_PHOTOS, rng), Palette(wall, stone, lawn, PRETRAINING_PHOTOS))


def render_world(seed: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """One world seen from ``VIEWS`` cameras: images uint8, depths float16 (inf: nothing), extrinsics, focal length."""
    height, width = size
    rng = np.random.default_rng(seed)
    world = build(rng)
    focal = width / 2 / np.tan(np.radians(rng.uniform(*FIELD_OF_VIEW)) / 2)
    target = (rng.uniform(-1, 1), rng.uniform(-1, 0.6), 0)
    poses = walk_past(rng, VIEWS, rng.uniform(4.5, 8), rng.uniform(1.5, 4.5), target)
    film = Film(lambda points: (points - [width / 2, height / 2]) / focal, height, width, focal)
    seen = [film.expose(world, pose) for pose in poses]
    return {
        "images": np.stack([image for image, _ in seen]),
        "depths": np.stack([depth for _, depth in seen]).astype(np.float16),
        "extrinsics": np.stack(poses).astype(np.float32),
        "focal": np.float32(focal),
    }


def render_worlds(count: int, size: tuple[int, int], workers: int) -> dict[str, Tensor]:
    """``count`` worlds stacked along the first axis."""
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(partial(render_world, size=size), range(count), chunksize=8)
        worlds = list(tqdm(done, total=count, desc="rendering worlds"))
    return {name: torch.from_numpy(np.stack([world[name] for world in worlds])) for name in worlds[0]}


def draw(worlds: dict[str, Tensor], batch: int, rng: np.random.Generator) -> dict[str, Tensor]:
    """A random batch: ``FRAMES`` successive views of each world, with a random colour cast."""
    which = torch.from_numpy(rng.integers(len(worlds["focal"]), size=batch))
    views = torch.from_numpy(rng.integers(VIEWS - FRAMES + 1, size=(batch, 1)) + np.arange(FRAMES))
    images = worlds["images"][which[:, None], views].permute(0, 1, 4, 2, 3).float() / 255
    cast = torch.from_numpy(rng.uniform(1 - COLOUR_CAST, 1 + COLOUR_CAST, (batch, 1, 3, 1, 1)).astype(np.float32))
    grey = torch.from_numpy(rng.random((batch, 1, 1, 1, 1)) < GREY)
    images = torch.where(grey, images.mean(2, keepdim=True), images)
    depths = worlds["depths"][which[:, None], views].float()
    masks = (depths > DEPTH_RANGE[0]) & (depths < DEPTH_RANGE[1])
    height, width = depths.shape[-2:]
    focal = worlds["focal"][which, None].expand(-1, FRAMES)
    intrinsics = torch.eye(3).repeat(batch, FRAMES, 1, 1)
    intrinsics[..., 0, 0], intrinsics[..., 1, 1] = focal, focal
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = (width - 1) / 2, (height - 1) / 2
    return {
        "images": (images * cast).clamp(0, 1),
        "depths": torch.where(masks, depths, 0),
        "masks": masks,
        "extrinsics": worlds["extrinsics"][which[:, None], views],
        "intrinsics": intrinsics,
    }


def total_loss(model: VGGT, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The release's objective, 5 x camera + depth + points, less its costly terms (quantile filter, normals)."""
    points = unproject(batch["depths"], batch["intrinsics"], batch["extrinsics"])
    target = normalise(batch["extrinsics"], batch["depths"], points, batch["masks"])
    out = model(batch["images"])
    camera = camera_loss(out["pose_enc_list"], target.extrinsics, batch["intrinsics"], batch["masks"])
    depth = depth_loss(out["depth"], out["depth_conf"], target.depths, batch["masks"], quantile=None)
    point = value_loss(out["world_points"], out["world_points_conf"], target.world_points, batch["masks"], quantile=None)
    loss = 5 * camera["camera"] + sum(depth.values()) + sum(point.values())
    shown = {"T": camera["T"], "R": camera["R"], "depth": depth["reg"], "point": point["reg"]}
    return loss, {name: value.item() for name, value in shown.items()}


def save(model: VGGT, path: Path) -> None:
    """Half precision, which halves the file and costs the network nothing that can be seen."""
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)


def main() -> None:
    """Render, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--worlds", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    study = load_study(STUDY, {"scale": "demo"})
    worlds = render_worlds(args.worlds, study.data.resolution, torch.get_num_threads())
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = VGGT(study.model.architecture)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.05, cycle_momentum=False)
    averages: dict[str, float] = {}
    progress = tqdm(range(args.steps), desc="pretraining")
    for step in progress:
        loss, parts = total_loss(model, draw(worlds, args.batch, rng))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for name, value in {"loss": loss.item(), **parts}.items():
            averages[name] = 0.99 * averages.get(name, value) + 0.01 * value
        if step % 50 == 0:
            progress.set_postfix({name: f"{value:.3f}" for name, value in averages.items()})
        if step % 1000 == 999:
            save(model, args.output)
    save(model, args.output)


if __name__ == "__main__":
    call(main)
