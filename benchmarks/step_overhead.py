"""What the trainer costs beside the plainest correct loop over the same model: seconds a step, as a ratio.

    python benchmarks/step_overhead.py [--strategy C] [--rank 16] [--steps 30]

Both train the demo's network with LoRA on the same fixed batch, in turns, on one CPU thread.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import torch
from torch import Tensor

from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.systems.vggt.system import System
from ablation.training.accelerator import make_accelerator
from ablation.training.model import for_training
from ablation.training.randomness import seed_everything
from ablation.training.step import TrainingStep

ROOT = Path(__file__).parent.parent


def random_batch(run: Run, frames: int = 4) -> dict[str, Tensor]:
    """A batch of the right shapes whose depth is everywhere valid."""
    height, width = run.settings.data.resolution
    shape = (run.axes["batch"], frames, height, width)
    depths = 1 + torch.rand(shape)
    intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    return {
        "images": torch.rand(*shape[:2], 3, height, width),
        "depths": depths,
        "masks": depths > 0,
        "regions": torch.zeros(shape, dtype=torch.uint8),
        "intrinsics": intrinsics.expand(*shape[:2], 3, 3),
        "extrinsics": torch.eye(4)[:3].expand(*shape[:2], 3, 4),
    }


def plain_step(system: System, model, optimizer, batch: dict[str, Tensor]) -> None:
    """Forward, backward, clip, update: nothing else."""
    for name in system.objectives:
        system.objective(model, batch, name).loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """Time both in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="C")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study(
        ROOT / "config/studies/vggt-eth3d.yaml", {"scale": "demo", "sweep": {"strategy": args.strategy, "rank": args.rank}}
    )
    run = expand(study, "benchmark")[0]
    system, batch, device = load_system(run.settings), random_batch(run), torch.device("cpu")
    weights = {name: ROOT / path for name, path in run.settings.weight_files().items()}
    accelerator = make_accelerator("fp32", device)

    def build():
        seed_everything(0)
        return for_training(system, run, weights, device)

    ours, model = TrainingStep(run, system, build(), accelerator), build()
    plain = model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=run.strategy.lr)
    seconds: dict[str, list[float]] = {"trainer": [], "plain": []}
    for _ in range(args.steps):
        start = time.perf_counter()
        ours([batch], 1, lambda _: None)
        between = time.perf_counter()
        plain_step(system, *plain, batch)
        seconds["trainer"].append(between - start)
        seconds["plain"].append(time.perf_counter() - between)
    trainer, other = (median(values[3:]) for values in seconds.values())
    sys.stdout.write(f"trainer {trainer:.4f} s, plain loop {other:.4f} s, ratio {trainer / other:.3f}\n")


if __name__ == "__main__":
    main()
