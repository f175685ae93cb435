"""What comes before the first step of a run: CPU seconds of importing and building, beside a plain script's.

    python benchmarks/startup.py [--only vggt-eth3d] [--times 3] [--record]

The plain script imports the same libraries at its top, builds the same demo network with the same weights, adapters and
optimizer; what it needs of the project (the study's file, the network's classes) it takes from there. Each start is a process
of its own, in turns.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

from recording import Row, record, told  # which finds the library

ROOT = Path(__file__).parent.parent
STRATEGIES = {"vggt-eth3d": "C", "hunyuan3d-4090": "B", "rdt-batch": "full", "kolors-3x4090": "A", "dit-images": "full"}
TEST = "tests/test_loading.py::test_both_ways_build_the_same_network"


def cpu_seconds() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_of(study: str):
    """The first run of the demo study with the system's strategy."""
    from ablation.study import load_study
    from ablation.sweep import expand

    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", {"scale": "demo"}), study)
    return next(run for run in runs if run.axes["strategy"] == STRATEGIES[study] and run.axes["precision"] == "fp32")


def ours(study: str):
    """As scripts/train_run.py does it, up to the first step; the network."""
    from ablation.training.loading import load_libraries

    run = run_of(study)
    load_libraries(run)
    import torch

    from ablation.systems import load_system
    from ablation.training.accelerator import make_accelerator
    from ablation.training.model import for_training
    from ablation.training.randomness import seed_everything
    from ablation.training.step import TrainingStep

    seed_everything(0)
    system, device = load_system(run.settings), torch.device("cpu")
    model = for_training(system, run, _weights(run), device)
    return TrainingStep(run, system, model, make_accelerator("fp32", device)).model


def plain(study: str):
    """The same as a script would that someone writes for one system; the network."""
    import accelerate
    import torch
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    run = run_of(study)
    lora = run.strategy.train.lora is not None
    if lora:
        from peft import LoraConfig, get_peft_model
    if run.settings.system in ("kolors", "dit"):
        import diffusers  # noqa: F401

    from ablation.systems import load_system
    from ablation.training.targets import adaptable_modules, modules

    system = load_system(run.settings)
    model = system.build()
    torch.manual_seed(0)
    system.load_weights(model, _weights(run))
    model.requires_grad_(False)
    if lora:
        alpha, dropout = run.settings.lora.alpha_per_rank * run.rank, run.settings.lora.dropout
        targets = adaptable_modules(model, run.strategy.train.lora)
        config = LoraConfig(r=run.rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
        model = get_peft_model(model, config)
    else:
        for name in modules(model, run.strategy.train.full):
            for parameter in model.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=run.strategy.lr)
    return accelerate.Accelerator(cpu=True).prepare(model.train(), optimizer)[0]


def _weights(run) -> dict[str, Path]:
    return {name: ROOT / path for name, path in run.settings.weight_files().items()}


def measure(study: str, times: int) -> Row:
    """Medians of so many starts of each."""
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(times):
        for name, found in seconds.items():
            command = [sys.executable, __file__, "--only", study, "--start", name]
            found.append(float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout))
    what = f"before the first step of the {study} demo, strategy {STRATEGIES[study]}, CPU seconds: a plain script, the trainer"
    return Row(what, *map(median, seconds.values()), "s", TEST)


def main() -> None:
    """Measure every system and print the ratios; ``--start``: be one start, and print its seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=STRATEGIES, help="one study")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--start", choices=("plain", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--record", action="store_true", help="keep what was found in benchmarks/speed")
    args = parser.parse_args()
    if args.start:
        {"plain": plain, "ours": ours}[args.start](args.only)
        sys.stdout.write(f"{cpu_seconds():.3f}\n")
        return
    rows = []
    for study in [args.only] if args.only else STRATEGIES:
        rows.append(measure(study, args.times))
        sys.stdout.write(told(rows[-1:]))
        sys.stdout.flush()
    if args.record:
        record("startup", rows)


if __name__ == "__main__":
    main()
