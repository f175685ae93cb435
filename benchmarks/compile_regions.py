"""What a compiled model costs before its first step ends: CPU seconds, compiled whole and by its repeated blocks.

    python benchmarks/compile_regions.py [--only dit-images] [--record]

The demo's networks, each in a process of its own with an empty cache and one thread; minutes, for the C++ that is compiled.
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from recording import Row, record, told  # which finds the library

ROOT = Path(__file__).parent.parent
STRATEGIES = {"dit-images": "full", "vggt-eth3d": "A"}
TEST = "tests/test_regions.py::test_a_compiled_step_equals_the_plain_one"


def cpu_seconds() -> float:
    """Of this process so far, and of the compilers that it has called."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def first_step(study: str, whole: bool) -> float:
    """CPU seconds of the first step of the demo's network, compiled."""
    import torch

    from ablation.study import load_study
    from ablation.sweep import expand
    from ablation.systems import load_system
    from ablation.training.accelerator import make_accelerator
    from ablation.training.model import fresh_for_training
    from ablation.training.step import TrainingStep

    torch.set_num_threads(1)
    content = {"scale": "demo", "training": {"compile": not whole}}
    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", content), study)
    run = next(run for run in runs if run.axes["strategy"] == STRATEGIES[study] and run.axes["precision"] == "fp32")
    system, device = load_system(run.settings), torch.device("cpu")
    model = fresh_for_training(system, run, device)
    if whole:
        model.compile()
    step = TrainingStep(run, system, model, make_accelerator("fp32", device))
    batch, start = system.fake_batch(run.axes["batch"]), cpu_seconds()
    step([batch], 1, lambda phase: None)
    return cpu_seconds() - start


def measure(study: str) -> Row:
    """Both, one after the other."""
    found = []
    for how in ("whole", "regions"):
        with TemporaryDirectory() as cache:
            around = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            command = [sys.executable, __file__, "--only", study, "--first", how]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=around)
            found.append(float(done.stdout))
    what = f"compiling the {study} demo, strategy {STRATEGIES[study]}, CPU seconds: whole, by repeated blocks"
    return Row(what, *found, "s", TEST)


def main() -> None:
    """Measure the systems and print the ratios; ``--first``: take one first step, and print its seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=STRATEGIES, help="one study")
    parser.add_argument("--first", choices=("whole", "regions"), help=argparse.SUPPRESS)
    parser.add_argument("--record", action="store_true", help="keep what was found in benchmarks/speed")
    args = parser.parse_args()
    if args.first:
        sys.stdout.write(f"{first_step(args.only, args.first == 'whole'):.3f}\n")
        return
    rows = []
    for study in [args.only] if args.only else STRATEGIES:
        rows.append(measure(study))
        sys.stdout.write(told(rows[-1:]))
        sys.stdout.flush()
    if args.record:
        record("compile_regions", rows)


if __name__ == "__main__":
    main()
