"""Short runs of the demo study of VGGT that share one job's process against a process each: CPU seconds of all their jobs.

    python benchmarks/runs_per_job.py [--runs 4] [--steps 5] [--turns 3] [--record]

The jobs come one after the other, as from the workflow: each run's own is called in both ways, the sharing ones find what the
first has kept and publish it. Training and evaluation are in both; what is trained must be the same, byte by byte.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from packing import data_of
from recording import Row, record, told

from ablation.files import write_csv, write_json
from ablation.resolved import runs_of, save_study
from ablation.study import load_study
from ablation.sweep import Run

ROOT = Path(__file__).parent.parent
STUDY = "vggt-eth3d"
TEST = "tests/test_runs_per_job.py::test_three_runs_learn_in_one_job_what_they_learn_alone"


def studied(folder: Path, runs_per_job: int, count: int, steps: int) -> list[Run]:
    """The study with ``count`` runs of ``steps``, of which so many share a job; its plan, and a base without metrics."""
    changes = {
        "scale": "demo",
        "training": {"steps": steps, "preview_every": None},
        "compute": {"runs_per_job": runs_per_job, "threads": 1, "workers": 0},
        "sweep": {"strategy": "A", "rank": 4, "seed": list(range(count))},
    }
    save_study(folder / "study.json", STUDY, load_study(ROOT / f"config/studies/{STUDY}.yaml", changes))
    runs = runs_of(folder / "study.json")
    write_csv(folder / "plan.csv", [{"run": run.id, "predicted_gib": 1.0, "verdict": "fits"} for run in runs])
    write_json(folder / "base.json", {"metrics": {}, "items": []})
    return runs


def jobs(runs: list[Run], folder: Path, data: list[Path], turn: int) -> float:
    """CPU seconds of the jobs of all ``runs``, and of all that these have started."""
    weights = [f"{name}={ROOT / path}" for name, path in runs[0].settings.weight_files().items()]
    common = ["--study", folder / "study.json", "--plan", folder / "plan.csv", "--cards", ROOT / "config/hardware"]
    common += ["--weights", *weights, "--data", *data, "--hashes", folder / "hashes", "--base", folder / "base.json"]
    before = _cpu_of_children()
    for run in runs:
        command = [sys.executable, ROOT / "scripts/train_run.py", *common, "--device", "cpu"]
        command += ["--run", run.id, "--folder", folder / f"{turn}/{run.id}"]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, cwd=ROOT
        )
        if done.returncode:
            sys.exit(done.stderr)
    return _cpu_of_children() - before


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def saved_by(folder: Path) -> dict[Path, bytes]:
    """What was trained in the first turn."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.glob("0/**/*.safetensors")}


def main() -> None:
    """Both in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the result in benchmarks/speed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        apart, shared = (Path(temporary, name) for name in ("apart", "shared"))
        runs = {folder: studied(folder, each, args.runs, args.steps) for folder, each in ((apart, 1), (shared, args.runs))}
        data = data_of(runs[apart][0], Path(temporary, "data"))
        seconds: dict[Path, list[float]] = {apart: [], shared: []}
        for turn in range(args.turns):
            for folder, found in seconds.items():
                found.append(jobs(runs[folder], folder, data, turn))
        same = saved_by(apart) == saved_by(shared) != {}
    short = f"{args.runs} runs of {args.steps} steps of the demo study of VGGT, evaluated"
    what = f"{short}: CPU seconds of their jobs, a process each, against one that is shared"
    rows = [Row(what, median(seconds[apart]), median(seconds[shared]), "s", TEST)]
    sys.stdout.write(told(rows) + f"what is trained is {'the same' if same else 'not the same'}, byte by byte\n")
    if not same:
        sys.exit(1)
    if args.record:
        record("runs_per_job", rows)


if __name__ == "__main__":
    main()
