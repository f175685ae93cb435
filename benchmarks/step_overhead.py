"""What the trainer's step costs beside the plainest correct loop over the same model: seconds a step, as a ratio.

    python benchmarks/step_overhead.py [--only vggt-eth3d] [--steps 10] [--record]

Both train the demo's network of a system on the same batch from the same random weights, on one CPU thread, in processes of
their own that take turns.
"""

import argparse
import gc
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from recording import Row, record, told  # which finds the library
from torch import Tensor, nn

from ablation.device import choose_device
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.systems.base import System
from ablation.training.accelerator import make_accelerator
from ablation.training.model import fresh_for_training
from ablation.training.randomness import seed_everything
from ablation.training.step import TrainingStep

ROOT = Path(__file__).parent.parent
STRATEGIES = {"vggt-eth3d": "C", "hunyuan3d-4090": "B", "rdt-batch": "lora", "kolors-3x4090": "A", "dit-images": "full"}
TEST = "tests/test_plain_loop.py::test_a_step_is_that_of_the_plainest_loop"
WARMUP, TURNS = 3, 3
CPU = torch.device("cpu")


class Plain:
    """Forward, backward, clip, update: nothing else."""

    def __init__(self, system: System, model: nn.Module, lr: float):
        self.system, self.model = system, model
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=lr)

    def __call__(self, batch: dict[str, Tensor]) -> None:
        """One optimizer step."""
        for name in self.system.objectives:
            self.system.objective(self.model, batch, name).loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def run_of(study: str) -> Run:
    """The first run of the demo study with the system's strategy."""
    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", {"scale": "demo"}), study)
    return next(run for run in runs if run.axes["strategy"] == STRATEGIES[study] and run.axes["precision"] == "fp32")


def seconds_of(kind: str, study: str, steps: int) -> float:
    """Median of a step of the plain loop or of ours, in this process, whose memory is as either has it."""
    run = run_of(study)
    device = choose_device("cpu", "demo") if kind == "ours" else CPU
    system = load_system(run.settings)
    seed_everything(0)
    batch = system.fake_batch(run.axes["batch"])
    if kind == "ours":
        step = TrainingStep(run, system, _model(system, run), make_accelerator("fp32", device))
        take = partial(step, [batch], 1, lambda phase: None)
    else:
        take = partial(Plain(system, _model(system, run), run.strategy.lr), batch)
    gc.collect()
    found = []
    for _ in range(WARMUP + steps):
        start = time.process_time()
        take()
        found.append(time.process_time() - start)
    return median(found[WARMUP:])


def measure(study: str, steps: int) -> Row:
    """Medians of so many steps of both: a process each, in turns."""
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(TURNS):
        for kind, found in seconds.items():
            with ProcessPoolExecutor(1, mp_context=get_context("fork")) as alone:
                found.append(alone.submit(seconds_of, kind, study, steps).result())
    what = f"a step of the {run_of(study).settings.system} demo, strategy {STRATEGIES[study]}: a plain loop, the trainer's"
    return Row(what, *map(median, seconds.values()), "s", TEST)


def _model(system: System, run: Run) -> nn.Module:
    seed_everything(0)
    return fresh_for_training(system, run, CPU)


def main() -> None:
    """Measure every system and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=STRATEGIES, help="one study")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--record", action="store_true", help="keep what was found in benchmarks/speed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for study in [args.only] if args.only else STRATEGIES:
        rows.append(measure(study, args.steps))
        sys.stdout.write(told(rows[-1:]))
        sys.stdout.flush()
    if args.record:
        record("step_overhead", rows)


if __name__ == "__main__":
    main()
