"""Pretrain the demo's small autoencoder of shapes on the committed meshes, and write its weights (fp16 safetensors).

The committed ``resources/hunyuan3d-demo-vae.safetensors`` was trained with these defaults by an earlier state of this program;
``make pretrain-vae`` (20 minutes on one CPU core) gives one like it, not the same bits, and asks for another transformer. Its
sizes are those of the demo study.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ablation.cli import call
from ablation.study import load_study
from ablation.systems.hunyuan3d.data.layout import REGIONS, geometry_files, read_distances, read_surface
from ablation.systems.hunyuan3d.data.prepare import prepare_shape
from ablation.systems.hunyuan3d.mesh import load_mesh
from ablation.systems.hunyuan3d.vae.vae import ShapeVAE

ROOT = Path(__file__).parent.parent
MESHES = ROOT / "resources/meshes"
POINTS = 1024  # that a shape is encoded from
DEMO = load_study(ROOT / "config/studies/hunyuan3d-4090.yaml", {"scale": "demo"}).model.autoencoder
KNOWN, HELD_OUT = 32_768, 2048  # rows of a shape and kind; of the distances, the last are kept for validation
SHARP = 256  # points of a shape that lie on sharp edges, in half of the batches; in the others, none
PLACES = {"vol": 320, "random_near": 448, "sharp_near": 256}  # of a shape in a batch
BAND = 0.1  # the field falls from 1 inside to -1 outside within this distance of the surface
DIVERGENCE = 1e-4  # weight of the latents' divergence from the normal distribution
LOG_VARIANCE = -4.0  # of the latents in the beginning: with more noise, they learn to tell nothing
TURN, SHRINK = np.radians(15), 0.9  # shapes are turned about the vertical by up to TURN, scaled by SHRINK to 1, mirrored or not


def prepare_meshes() -> dict[str, Tensor]:
    """Points [S, KNOWN, 6], ``even`` over the surface or on ``sharp`` edges; places and distances [S, KNOWN, 4] by region."""
    shapes: dict[str, list] = {name: [] for name in ("even", "sharp", *REGIONS)}
    with tempfile.TemporaryDirectory() as folder:
        for path in tqdm(sorted(MESHES.glob("*.ply")), desc="preparing meshes"):
            prepare_shape(Path(folder), path.stem, load_mesh(path), seed=0, points=KNOWN, distances=KNOWN)
            surface, distances = geometry_files(Path(folder), path.stem)
            for name, points in zip(("even", "sharp"), read_surface(surface), strict=True):
                shapes[name].append(points)
            for name, (places, values) in read_distances(distances).items():
                shapes[name].append(np.concatenate([places, values[:, None]], axis=1))
    return {name: torch.from_numpy(np.stack(rows)) for name, rows in shapes.items()}


def draw(shapes: dict[str, Tensor], which: np.ndarray, rng: np.random.Generator, held_out: bool = False) -> tuple[Tensor, ...]:
    """Of the shapes ``which`` [B]: surface [B, points, 7], places [B, Q, 3] and their distances [B, Q], moved at random."""
    sharp = SHARP * int(rng.integers(2))
    surface = torch.cat([
        F.pad(pick(shapes["even"], which, POINTS - sharp, (0, KNOWN), rng), (0, 1)),
        F.pad(pick(shapes["sharp"], which, sharp, (0, KNOWN), rng), (0, 1), value=1.0),
    ], dim=1)  # fmt: skip
    rows = (KNOWN - HELD_OUT, KNOWN) if held_out else (0, KNOWN - HELD_OUT)
    known = torch.cat([pick(shapes[region], which, count, rows, rng) for region, count in PLACES.items()], dim=1)
    turns, scales = similarities(len(which), rng)
    places, normals = surface[..., :3] @ turns * scales, F.normalize(surface[..., 3:6], dim=-1) @ turns
    return (
        torch.cat([places, normals, surface[..., 6:]], dim=-1),
        known[..., :3] @ turns * scales,
        known[..., 3] * scales[..., 0],
    )


def pick(rows: Tensor, which: np.ndarray, count: int, between: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """``count`` random rows of each of the shapes ``which``."""
    chosen = rng.integers(*between, (len(which), count))
    return rows[torch.from_numpy(which)[:, None], torch.from_numpy(chosen)]


def similarities(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """[count, 3, 3] turns, some with a mirror, and [count, 1, 1] scales: distances follow exactly."""
    angles, mirrors = rng.uniform(-TURN, TURN, count), rng.choice([-1, 1], count)
    cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros(count)
    turns = np.stack([mirrors * cos, zero, -mirrors * sin, zero, zero + 1, zero, sin, zero, cos], axis=1).reshape(-1, 3, 3)
    scales = rng.uniform(SHRINK, 1, (count, 1, 1))
    return torch.from_numpy(turns.astype(np.float32)), torch.from_numpy(scales.astype(np.float32))


def losses(model: ShapeVAE, batch: tuple[Tensor, ...], noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared error of the field, divergence of the latents, and the share of places on the wrong side."""
    surface, places, distances = batch
    latents = model.encode(surface)
    sampled = latents.mean if noise is None else latents.sample(noise)
    field = model.field(places, model.decode(model.scaled(sampled)))
    wrong = ((field > 0) == (distances > 0)).float().mean()
    return F.mse_loss(field, (-distances / BAND).clamp(-1, 1)), latents.divergence(), wrong


@torch.no_grad()
def validate(model: ShapeVAE, shapes: dict[str, Tensor]) -> dict[str, float]:
    """Errors at the places held out, and the deviation of the latents, over all shapes."""
    rng = np.random.default_rng(1)
    batch = draw(shapes, np.arange(len(shapes["even"])), rng, held_out=True)
    error, divergence, wrong = losses(model, batch, None)
    deviation = model.encode(batch[0]).mean.std()
    return {"error": error.item(), "divergence": divergence.item(), "wrong": wrong.item(), "deviation": deviation.item()}


def save(model: ShapeVAE, path: Path) -> None:
    """Half precision, names as in the release's safetensors."""
    save_file({f"vae.{name}": value.half().contiguous() for name, value in model.state_dict().items()}, path)


def main() -> None:
    """Prepare, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    shapes = prepare_meshes()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = ShapeVAE(DEMO)
    torch.nn.init.constant_(model.pre_kl.bias[DEMO.channels :], LOG_VARIANCE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.05, cycle_momentum=False)
    progress = tqdm(range(args.steps), desc="pretraining")
    for step in progress:
        which = rng.permutation(len(shapes["even"]))[: args.batch]
        batch = draw(shapes, which, rng)
        noise = torch.randn(len(which), DEMO.latents, DEMO.channels)
        error, divergence, _ = losses(model, batch, noise)
        optimizer.zero_grad()
        (error + DIVERGENCE * divergence).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 199 or step == args.steps - 1:
            progress.write(f"{step + 1}: " + ", ".join(f"{k} {v:.4f}" for k, v in validate(model, shapes).items()))
            save(model, args.output)


if __name__ == "__main__":
    call(main)
