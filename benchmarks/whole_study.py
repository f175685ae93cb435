"""The demo study of VGGT, up to the table of its runs, against the same grid with one process a run and nothing shared.

    python benchmarks/whole_study.py [--seeds 0 1] [--record]

Both in CPU seconds, and in copies of the project of their own; the study with short runs that share a process
(``compute.runs_per_job``). The metrics of both must agree.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from recording import Row, record, told
from tqdm import tqdm

from ablation.resolved import runs_of, save_study
from ablation.study import load_study

ROOT = Path(__file__).parent.parent
STUDY = "vggt-eth3d"
FOLDER = f"results/demo/{STUDY}"
RUNS_PER_JOB = 6
METRICS_WITHIN = 1e-3  # of each other: at most rounding, where the two compute in another order
TEST = "tests/test_training.py::test_the_trainer_learns_what_a_plain_loop_learns"


def copied(target: Path) -> Path:
    """The project as git has it, with what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


def cpu_seconds(command: list[str], folder: Path) -> float:
    """CPU time of ``command`` and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shared(folder: Path, seeds: list[int]) -> float:
    """The study through Snakemake."""
    settings = [f"sweep={{seed: {seeds}}}", f"compute={{runs_per_job: {RUNS_PER_JOB}}}"]
    target = [f"{FOLDER}/runs.parquet", "--profile", "local", "-c2", "--config", f"studies={STUDY}", "scale=demo", *settings]
    return cpu_seconds([sys.executable, "-m", "snakemake", *target], folder)


def alone(folder: Path, seeds: list[int]) -> float:
    """The same runs, one after the other, from the files of the project alone."""
    study = load_study(ROOT / f"config/studies/{STUDY}.yaml", {"scale": "demo", "sweep": {"seed": seeds}})
    save_study(folder / "study.json", STUDY, study)
    program = [sys.executable, str(folder / "benchmarks/naive_run.py"), "--study", "study.json"]
    runs = tqdm(runs_of(folder / "study.json"), "one process a run", unit="run", leave=False)
    return sum(cpu_seconds([*program, "--run", run.id, "--folder", f"naive/{run.id}"], folder) for run in runs)


def furthest(ours: Path, naive: Path) -> float:
    """The largest relative difference of any metric of any run."""
    worst = 0.0
    for path in sorted(naive.glob("*/metrics.json")):
        other, own = json.loads(path.read_text()), json.loads((ours / path.parent.name / "metrics.json").read_text())
        for when in ("metrics_before", "metrics"):
            pairs = [(own[when][name], value) for name, value in other[when].items()]
            worst = max([worst, *(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)])
    return worst


def main() -> None:
    """Both, compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--record", action="store_true", help="keep the result in benchmarks/speed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        ours, naive = copied(Path(temporary, "ours")), copied(Path(temporary, "naive"))
        after, before = shared(ours, args.seeds), alone(naive, args.seeds)
        difference = furthest(ours / FOLDER / "runs", naive / "naive")
    rows = [Row("the whole demo study of VGGT, against one process a run with nothing shared", before, after, "CPU s", TEST)]
    sys.stdout.write(told(rows) + f"largest relative difference of a metric: {difference:.2g}\n")
    if difference > METRICS_WITHIN:
        sys.exit(f"the metrics differ by more than {METRICS_WITHIN:g}")
    if args.record:
        record("whole_study", rows)


if __name__ == "__main__":
    main()
