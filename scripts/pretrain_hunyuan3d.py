"""Pretrain the demo's small Hunyuan3D on the committed meshes, and write its weights (fp16 safetensors).

The committed ``resources/hunyuan3d-demo.safetensors`` was trained by these functions with these defaults, called one by one;
``make pretrain-hunyuan3d`` (8 minutes on one CPU core) gives one like it, not the same bits. The shapes that the demo study
adapts to are kept out, so that fine-tuning has something to learn. The autoencoder stays as it is; the image encoder, which is
frozen from here on, learns with the transformer.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ablation.cli import call
from ablation.parts import Part
from ablation.study import Study, load_study
from ablation.systems.hunyuan3d import preparation
from ablation.systems.hunyuan3d.conditioner import prepare_images
from ablation.systems.hunyuan3d.data.images import conditioner_image
from ablation.systems.hunyuan3d.data.layout import pick_points
from ablation.systems.hunyuan3d.data.shape import Shape
from ablation.systems.hunyuan3d.flow import flow_step
from ablation.systems.hunyuan3d.network import ShapeGenerator
from ablation.systems.hunyuan3d.vae.points import farthest_points
from ablation.systems.hunyuan3d.weights import load_weights

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "config/studies/hunyuan3d-4090.yaml"
MESHES = ROOT / "resources/meshes"
VIEWS, CLOUDS = 24, 32  # pictures of each shape, and choices of its surface points
UNSEEN = 0.1  # probability that the image is hidden, so that guidance has something to push away from
AVERAGE = 0.995  # of the weights that are written


class Known(NamedTuple):
    """Of all shapes: Gaussians of the latents, both [S, CLOUDS, latents, C], and pictures [S, VIEWS, 3, side, side]."""

    mean: Tensor
    deviation: Tensor
    images: Tensor


def know(network: ShapeGenerator, study: Study, names: list[str]) -> Known:
    """Prepare the shapes ``names`` as the workflow does, and encode each from ``CLOUDS`` choices of its points."""
    found = []
    how = {**study.data.from_meshes.model_dump(), "views": VIEWS}
    with TemporaryDirectory() as temporary:
        for name in tqdm(names, "preparing shapes"):
            folder = Path(temporary) / name
            folder.mkdir()
            preparation.prepare(Part("shape", name, {"source": "meshes", "root": str(MESHES), **how}), [], folder)
            found.append(encoded(network, study, Shape(folder, study.data.points, study.data.sharp_points)))
    return Known(*(torch.stack(parts) for parts in zip(*found, strict=True)))


@torch.no_grad()
def encoded(network: ShapeGenerator, study: Study, shape: Shape) -> Known:
    """One shape's part of it."""
    rng, data = np.random.default_rng(0), study.data
    clouds = np.stack([pick_points(shape.surface(), data.points, data.sharp_points, rng) for _ in range(CLOUDS)])
    surface = torch.from_numpy(clouds)
    known = network.vae.encode(surface, farthest_points(surface[..., :3], network.vae.latents))
    side = study.model.conditioner.image_size
    images = torch.stack([conditioner_image(view, side) for view in shape.views])
    return Known(known.mean, (0.5 * known.log_variance).exp(), prepare_images(images, side))


def loss(network: ShapeGenerator, known: Known, batch: int, rng: np.random.Generator) -> Tensor:
    """The flow's loss on random shapes, points, pictures, noise and times."""
    shapes, clouds, views = (torch.from_numpy(rng.integers(size, size=batch)) for size in (len(known.mean), CLOUDS, VIEWS))
    mean, deviation = known.mean[shapes, clouds], known.deviation[shapes, clouds]
    posterior, noise = (torch.from_numpy(rng.standard_normal(mean.shape, np.float32)) for _ in range(2))
    shown = torch.from_numpy(rng.random((batch, 1, 1)) >= UNSEEN)
    condition = network.conditioner.main_image_encoder(known.images[shapes, views]) * shown
    data = network.vae.scaled(mean + deviation * posterior)
    time = torch.from_numpy(rng.random(batch, np.float32))
    return flow_step(network.model, data, noise, time, condition).loss


def save(network: ShapeGenerator, averages: dict[str, Tensor], path: Path) -> None:
    """Half precision, which halves the file; ``averages`` of what was trained, and the rest as it is."""
    state = {**network.state_dict(), **averages}
    save_file({name: value.half().contiguous() for name, value in state.items()}, path)


def main() -> None:
    """Prepare, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--autoencoder", type=Path, default=ROOT / "resources/hunyuan3d-demo-vae.safetensors")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    study = load_study(STUDY, {"scale": "demo"})
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    network = ShapeGenerator(study.model)
    load_weights({"vae": network.vae}, args.autoencoder)
    names = sorted(path.stem for path in MESHES.glob("*.ply") if path.stem not in study.data.shapes)
    known = know(network, study, names)
    trained = {n: p for n, p in network.named_parameters() if not n.startswith("vae.")}
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.values(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.05, cycle_momentum=False)
    averages = {name: parameter.detach().clone() for name, parameter in trained.items()}
    shown = 2.0
    progress = tqdm(range(args.steps), "pretraining")
    for step in progress:
        value = loss(network.train(), known, args.batch, rng)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        schedule.step()
        keep = min(AVERAGE, (step + 1) / (step + 10))
        torch._foreach_lerp_([*averages.values()], [p.detach() for p in trained.values()], 1 - keep)
        shown += 0.02 * (value.item() - shown)
        progress.set_postfix(loss=f"{shown:.3f}", refresh=False)
        if step % 500 == 499:
            save(network, averages, args.output)
    save(network, averages, args.output)


if __name__ == "__main__":
    call(main)
