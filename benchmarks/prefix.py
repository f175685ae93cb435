"""Training runs of the VGGT demo that share a frozen part: computed in every step, against computed once and read.

    python benchmarks/prefix.py [--turns 3] [--record]

In CPU seconds of all programs, that which makes the cache among them; with and without in turns, medians. What is trained must
be the same to the bit.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from naive_run import prepared
from recording import Row, record, told
from whole_study import STUDY, copied, cpu_seconds

from ablation.resolved import runs_of, save_study
from ablation.study import load_study
from ablation.sweep import Run

TEST = "tests/test_prefix.py::test_losses_gradients_weights_and_metrics_are_the_same"


def seconds(project: Path, runs: list[Run], data: list[str], folder: Path, prefixes: Path | None) -> float:
    """CPU time of ``runs``, trained in ``folder``; with ``prefixes``, of making that first."""
    weights = [f"{name}={path}" for name, path in runs[0].settings.weight_files().items()]
    common = ["--study", "study.json", "--weights", *weights, "--data", *data, "--hashes", str(folder / "hashes")]

    def program(name: str, *arguments: str) -> float:
        return cpu_seconds([sys.executable, f"scripts/{name}.py", *common, "--device", "cpu", *arguments], project)

    spent, reading = 0.0, []
    if prefixes:
        (shared,) = {run.prefix for run in runs}
        spent += program("cache_prefix", "--prefix", shared, "--output", str(prefixes / shared))
        reading = ["--prefixes", str(prefixes)]
    for run in runs:
        where = ["--cards", "config/hardware", "--folder", str(folder / run.id)]
        spent += program("train_run", "--run", run.id, *where, *reading)
    return spent


def compared(project: Path, work: Path, strategies: list[str], turns: int) -> tuple[float, float]:
    """Medians without and with a cache, for two ranks of ``strategies``."""
    study = load_study(
        project / f"config/studies/{STUDY}.yaml", {"scale": "demo", "sweep": {"seed": 0, "strategy": strategies}}
    )
    save_study(project / "study.json", STUDY, study)
    runs = runs_of(project / "study.json")
    data = [str(prepared(part, study.settings.system, work / "data")) for part in study.settings.parts()]
    without, reading = [], []
    for turn in range(turns):
        plain, quick = work / f"plain-{turn}", work / f"quick-{turn}"
        without.append(seconds(project, runs, data, plain, None))
        reading.append(seconds(project, runs, data, quick, quick / "prefixes"))
        for run in runs:
            name = Path(run.id, "adapter/adapter_model.safetensors")
            if (plain / name).read_bytes() != (quick / name).read_bytes():
                sys.exit(f"{run.id}: not the same")
        for folder in (plain, quick):
            shutil.rmtree(folder)
    return statistics.median(without), statistics.median(reading)


def main() -> None:
    """One strategy, and all that share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the result in benchmarks/speed")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        project = copied(Path(temporary, "project"))
        for what, strategies in (("A", ["A"]), ("A, B and C", ["A", "B", "C"])):
            found = compared(project, Path(temporary, "work"), strategies, args.turns)
            rows.append(Row(f"VGGT demo, training {what} at two ranks, frozen part computed once", *found, "CPU s", TEST))
    sys.stdout.write(told(rows))
    if args.record:
        record("prefix", rows)


if __name__ == "__main__":
    main()
