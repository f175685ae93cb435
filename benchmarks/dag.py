"""What Snakemake needs to look at a study of many runs (`snakemake -n`), against the plainest Snakefile for the same runs.

    python benchmarks/dag.py [--seeds 1666] [--turns 3] [--record]

The plain one has a job for each training and one for each evaluation, with the weights and scenes that they read as inputs,
and decides nothing. In CPU seconds; seconds on the clock and MiB are printed, too, and what making the plan and parsing take.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from recording import Row, record, told
from whole_study import FOLDER, STUDY, copied

TEST = "tests/test_workflow.py::test_comments_and_evaluation_settings_retrain_nothing"
CELLS = 6  # strategies and ranks of the study
PLAIN = """
READ = ["weights.safetensors", *(f"scene-{{number}}" for number in range(5))]


rule all:
    input:
        expand("runs/{{run}}/metrics.json", run=range({runs})),


rule train:
    input:
        READ,
    output:
        expand("runs/{{{{run}}}}/{{name}}", name=["run.yaml", "history.csv", "training.json", "manifest.json"]),
    log:
        "logs/train/{{run}}.log",
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=60,
    shell:
        "python train.py --data {{input}} --run {{wildcards.run}} > {{log}}"


rule evaluate:
    input:
        READ,
        "base.json",
        "runs/{{run}}/training.json",
    output:
        "runs/{{run}}/metrics.json",
    log:
        "logs/evaluate/{{run}}.log",
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=60,
    shell:
        "python evaluate.py --data {{input}} --run {{wildcards.run}} > {{log}}"
"""


class Cost(NamedTuple):
    """Of a command."""

    cpu: float
    seconds: float
    mib: float


def cost(arguments: list[str], folder: Path) -> Cost:
    """Run Snakemake in ``folder``."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    begun, environment = time.monotonic(), {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed in {folder}: {' '.join(command[:9])} ...")
    return Cost(used.ru_utime + used.ru_stime, time.monotonic() - begun, used.ru_maxrss / 1024)


def median(costs: list[Cost]) -> Cost:
    """Of each of its numbers."""
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def main() -> None:
    """Make the plan, then look at both in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1666, help=f"of each of {CELLS} cells")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    runs = CELLS * args.seeds
    sweep = f"sweep={{strategy: [A, B, C], rank: [4, 16], seed: {list(range(args.seeds))}}}"
    with tempfile.TemporaryDirectory() as scratch:
        ours, plain = copied(Path(scratch) / "ours"), Path(scratch) / "plain"
        profile = ["--profile", str(ours / "profiles/local"), "-c2"]
        study = [*profile, "--config", f"studies={STUDY}", "scale=demo", sweep]
        plain.mkdir()
        (plain / "Snakefile").write_text(PLAIN.format(runs=runs))
        for name in ("weights.safetensors", "base.json", *(f"scene-{number}" for number in range(5))):
            (plain / name).touch()
        planned = cost([f"{FOLDER}/plan.csv", *study], ours)
        parsed, nothing = cost(["--list", *study], ours), cost(["--list", *profile], plain)
        turns = [(cost(["-n", *profile], plain), cost(["-n", *study], ours)) for _ in range(args.turns)]
    before, after = (median(list(costs)) for costs in zip(*turns, strict=True))
    for what, of in (("plan", planned), ("plain -n", before), ("ours -n", after)):
        sys.stdout.write(f"{what}: {of.cpu:.1f} s CPU, {of.seconds:.1f} s, {of.mib:.0f} MiB\n")
    sys.stdout.write(f"parse: {parsed.cpu - nothing.cpu:.2f} s CPU more than the plain Snakefile\n")
    rows = [Row(f"snakemake -n of {runs:,} runs, CPU, against the plainest Snakefile", before.cpu, after.cpu, "s", TEST)]
    sys.stdout.write(told(rows))
    if args.record:
        record("dag", rows)


if __name__ == "__main__":
    main()
