"""Runs of the demo study of VGGT that share one card against the same runs one by one: seconds until the last is trained.

    python benchmarks/packing.py [--runs 2] [--steps 30] [--turns 3] [--record]

All programs are started at once, and the lease of the card decides. Without a GPU the card is pretended, and a run has one
thread of the CPU: what is gained then is the use of the other cores. What is trained must be the same, byte by byte on a CPU.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from naive_run import prepared
from recording import Row, record, told

from ablation.files import write_csv
from ablation.gpus import FOLDER, visible_gpus
from ablation.hardware import load_card
from ablation.preflight import plan
from ablation.resolved import runs_of, save_study
from ablation.seal import seal
from ablation.study import load_study
from ablation.sweep import Run

ROOT = Path(__file__).parent.parent
STUDY = "vggt-eth3d"
SAVED = "adapter/adapter_model.safetensors"
TEST = "tests/test_packing.py::test_two_runs_share_a_card_and_learn_what_they_learn_alone"


def studied(folder: Path, pack: int, count: int, steps: int) -> list[Run]:
    """The study with ``count`` runs of ``steps``, of which ``pack`` may share a card, and its plan."""
    sweep = {"strategy": "A", "rank": 4, "seed": list(range(count))}
    how = {"training": {"steps": steps}, "compute": {"pack": pack, "threads": 1, "workers": 0}, "sweep": sweep}
    study = load_study(ROOT / f"config/studies/{STUDY}.yaml", {"scale": "demo", **how})
    save_study(folder / "study.json", STUDY, study)
    card = load_card(study.hardware, ROOT / "config/hardware")
    write_csv(folder / "plan.csv", plan(study, STUDY, card, folder.parent / "traces").runs)
    return runs_of(folder / "study.json")


def data_of(run: Run, folder: Path) -> list[Path]:
    """The prepared data of ``run``."""
    found = [prepared(part, run.settings.system, folder) for part in run.settings.parts()]
    for each in found:
        seal(each)
    return found


def trained(runs: list[Run], folder: Path, data: list[Path], turn: int, gpu: str) -> float:
    """Seconds in which all programs have ended that were started together."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": gpu, FOLDER: str(folder / "leases")}
    weights = [f"{name}={ROOT / path}" for name, path in runs[0].settings.weight_files().items()]
    common = ["--study", folder / "study.json", "--plan", folder / "plan.csv", "--cards", ROOT / "config/hardware"]
    common += ["--weights", *weights, "--data", *data, "--hashes", folder / "hashes"]
    begun = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, ROOT / "scripts/train_run.py", *common, "--run", run.id, "--folder", folder / f"{turn}/{run.id}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for run in runs
    ]
    if failed := [process.args for process in processes if process.wait()]:
        sys.exit(f"failed: {failed[0]}")
    return time.monotonic() - begun


def saved_by(runs: list[Run]) -> list[str]:
    """The files with what ``runs`` trained in the first turn."""
    return [f"0/{run.id}/{SAVED}" for run in runs]


def main() -> None:
    """Both in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2, help="that share the card, all of them")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the result in benchmarks/speed")
    args = parser.parse_args()
    found = visible_gpus()
    with tempfile.TemporaryDirectory() as temporary:
        alone, packed = (Path(temporary, name) for name in ("alone", "packed"))
        runs = {folder: studied(folder, pack, args.runs, args.steps) for folder, pack in ((alone, 1), (packed, args.runs))}
        data = data_of(runs[alone][0], Path(temporary, "data"))
        seconds: dict[Path, list[float]] = {alone: [], packed: []}
        for turn in range(args.turns):
            for folder, times in seconds.items():
                times.append(trained(runs[folder], folder, data, turn, found[0] if found else "0"))
        same = all((alone / saved).read_bytes() == (packed / saved).read_bytes() for saved in saved_by(runs[alone]))
    on = "that share a GPU" if found else "that share a pretended GPU, a CPU thread each"
    what = f"{args.runs} runs of the demo study of VGGT {on}, against one by one"
    rows = [Row(what, median(seconds[alone]), median(seconds[packed]), "s", TEST)]
    sys.stdout.write(told(rows) + f"what is trained is {'the same' if same else 'not the same'}, byte by byte\n")
    if not same and not found:
        sys.exit(1)
    if args.record:
        record("packing", rows)


if __name__ == "__main__":
    main()
