"""How long it takes to collect and to report many runs, and how much memory, each in a process of its own.

    python benchmarks/report_scale.py [--runs 10000] [--folder DIR] [--only STEP]

Makes the files that so many runs would leave: 3 seeds a cell, 12 held-out items, 200 steps. Exits with 1 over a limit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import numpy as np
import pandas as pd

from ablation.resolved import save_study
from ablation.study import Study, load_study
from ablation.sweep import Run, expand

ROOT = Path(__file__).parent.parent
SECONDS, GIB = 60, 2  # both steps together; each of them
SEEDS, ITEMS, STEPS = 3, 12, 200
DECAYS = 37  # values to a rank
NAME = "scale"


def study_of(runs: int) -> Study:
    """The demo of VGGT with as many cells as make at most ``runs`` runs."""
    ranks = list(range(1, max(2, runs // (3 * SEEDS * DECAYS) + 1)))
    decays = [round(0.001 * i, 3) for i in range(DECAYS)]
    sweep = {"rank": ranks, "training.weight_decay": decays, "seed": list(range(SEEDS))}
    return load_study(ROOT / "config/studies/vggt-eth3d.yaml", {"scale": "demo", "sweep": sweep})


def write_files(folder: Path, count: int) -> None:
    """Study, plan and the folders of the runs, of which some ran out of memory or diverged."""
    study = study_of(count)
    runs = expand(study, NAME)[:count]
    save_study(folder / "study.json", NAME, study)
    generator = np.random.default_rng(0)
    before = _metrics(study, 0.8, generator)
    items_before = [{"item": f"hall-{i}"} | _metrics(study, 0.8, generator) for i in range(ITEMS)]
    manifest = json.dumps(MANIFEST, indent=1)
    for i, run in enumerate(runs):
        target = folder / "runs" / run.id
        target.mkdir(parents=True)
        content = _result(study, run, generator) | {"metrics_before": before, "items_before": items_before}
        if i % 50 == 0:
            content |= {
                "outcome": "diverged",
                "metrics": {},
                "items": [],
                "diagnoses": [{"name": "non-finite loss", "step": 99}],
            }
        (target / "metrics.json").write_text(json.dumps(content, indent=1))
        (target / "manifest.json").write_text(manifest)
        (target / "history.csv").write_text(_history(generator))
    planned = {
        "total_params": 2_145_392, "predicted_reserved_gib": 0.1, "predicted_gib": 0.6, "frozen_weights_gib": 0.1,
        "context_gib": 0.5, "peak_phase": "forward", "memory_verdict": "fits", "budget_gib": 23.64, "verdict": "fits",
        "reason": "",
    }  # fmt: skip
    rows = [{"run": run.id, **run.axes, "trainable_params": 5000 * run.rank, **planned} for run in runs]
    pd.DataFrame(rows).to_csv(folder / "plan.csv", index=False)


def _metrics(study: Study, level: float, generator: np.random.Generator) -> dict[str, float]:
    return {metric.name: float(level * generator.uniform(0.8, 1.2)) for metric in study.metrics()}


def _result(study: Study, run: Run, generator: np.random.Generator) -> dict:
    level = 0.5 - 0.002 * run.rank
    peaks = {phase: {"allocated_gib": 0.01 * run.rank} for phase in ("optimizer", "forward", "backward")}
    return {
        "schema": 1, "run": run.id, "outcome": "completed", "device": "cpu", "steps": STEPS, "epochs": 12.0,
        "final_loss": float(generator.uniform(0.2, 0.4)), "diagnoses": [],
        "parameters": {"total": 2_208_392, "trainable": 5000 * run.rank},
        "time": {"load_s": 0.1, "step_median_s": 0.2, "step_p95_s": 0.3, "samples_per_s": 10.1},
        "memory": {"kind": "cpu", "peak_allocated_gib": 0.01 * run.rank, "peak_resident_gib": 0.7, "phases": peaks},
        "axes": run.axes, "metrics": _metrics(study, level, generator),
        "items": [{"item": f"hall-{i}"} | _metrics(study, level, generator) for i in range(ITEMS)],
        "notes": {"alignment": "median, one scale a sequence", "images": "60"},
    }  # fmt: skip


def _history(generator: np.random.Generator) -> str:
    steps = np.arange(1, STEPS + 1)
    losses = 2 / np.sqrt(steps) + generator.uniform(0, 0.2, STEPS)
    rows = [f"{i},{i / 5:.4f},0.0003,{x:.17g},{x / 9:.17g},{9 * x:.17g},0.25" for i, x in zip(steps, losses, strict=True)]
    return "\n".join(["step,epoch,lr,loss,reg,grad_norm,seconds", *rows, ""])


MANIFEST = {
    "schema": 1, "written": "2026-01-01T00:00:00+00:00", "code": {"commit": "0" * 40, "changed": False}, "python": "3.11.7",
    "packages": {"torch": "2.13.0+cpu", "peft": "0.21.2", "accelerate": "1.15.0"}, "host": "node1", "system": "Linux",
    "cpu": "AMD EPYC", "device": {"type": "cpu", "threads": 1}, "slurm_job": None,
}  # fmt: skip


def steps(folder: Path) -> dict[str, list[str]]:
    """The programs that the workflow's rules call, by name."""
    submitted = ["--submitted", "fits", "tight"]
    tables = ["--parquet", folder / "runs.parquet", "--csv", folder / "runs.csv"]
    return {
        "collect": ["collect_runs.py", "--folder", folder, "--plan", folder / "plan.csv", *submitted, *tables],
        "report": ["write_report.py", "--study", folder / "study.json", "--folder", folder],
    }


def measured(command: list) -> tuple[float, float, float]:
    """Seconds, those of its processor, and the most memory in GiB, of a program among ``scripts/``."""
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, ROOT / "scripts" / command[0], *map(str, command[1:])], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def main() -> None:
    """Make the files, run both programs, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="keep the files here, and use those that are there")
    parser.add_argument("--only", choices=("collect", "report"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "plan.csv").is_file():
            write_files(folder, args.runs)
        chosen = {name: command for name, command in steps(folder).items() if args.only in (None, name)}
        found = {name: measured(command) for name, command in chosen.items()}
        print(f"{sum(1 for _ in (folder / 'runs').iterdir()):,} runs    seconds  of the CPU  peak GiB")
        for name, (seconds, cpu, gib) in found.items():
            print(f"{name:12} {seconds:9.1f} {cpu:11.1f} {gib:9.2f}")
        total, busy = (sum(row[i] for row in found.values()) for i in (0, 1))
        most = max(gib for _, _, gib in found.values())
        print(f"{'in all':12} {total:9.1f} {busy:11.1f} {most:9.2f}\n{'limit':12} {SECONDS:9} {GIB:21}")
    sys.exit(total > SECONDS or most > GIB)


if __name__ == "__main__":
    main()
