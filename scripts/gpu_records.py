"""Hold the predictor against this machine's GPU: networks at their released sizes, random weights and data, a process a case.

    python scripts/gpu_records.py

Writes benchmarks/records/<gpu>-<date>.json, anew after every case. It needs no network, weights or data, and ends within nine
minutes: the most informative cases come first, and none begins that the time may not suffice for. Without a CUDA device the
exit status is 1; `--device cpu` measures a few small cases instead, which tests the way but says nothing of a GPU.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ablation.cli import call
from ablation.files import write_json
from ablation.hardware import Card, load_card
from ablation.provenance import surroundings
from ablation.settings import Scale
from ablation.study import Study, load_study
from ablation.sweep import Run
from ablation.vram.records import Case, case
from ablation.vram.suite import ACCUMULATION, DEMO, FULL, Setting, own_card, predict

ROOT = Path(__file__).parent.parent
SECONDS = 9 * 60
NO_GPU = 1
KEPT = ("written", "code", "python", "packages", "system", "device")  # of what it says


class Suite:
    """The cases of a suite on one device, one after the other."""

    def __init__(self, scale: Scale, device: torch.device, folder: Path, seconds: float):
        self.scale, self.device, self.folder = scale, device, folder
        self.own = own_card(device)
        self._end, self._longest = time.monotonic() + seconds, 0.0

    def cases(self, settings: Sequence[Setting]) -> Iterator[Case]:
        """A case for each setting, until the time may not suffice for one more."""
        for setting in tqdm(settings, desc="cases", disable=None):
            start = time.monotonic()
            if start + self._longest > self._end:
                return
            yield self._case(setting)
            self._longest = max(self._longest, time.monotonic() - start)

    def _case(self, setting: Setting) -> Case:
        """Predicted while it is measured."""
        run, card = setting.run(_study(setting.study, self.scale)), self._card(setting)
        output = self.folder / f"{setting.name}.json"
        view = {"run": self._write("run", run.training_view), "card": self._write("card", card.model_dump(mode="json"))}
        log = self.folder / f"{setting.name}.log"
        with _started(view, setting.card or "device", self.device, output, log) as process:
            predicted = _predicted(run, card, self.device, setting.card is not None)
            measured = _measured(process, output, log, self._end - time.monotonic())
        on_gpu, memory = self.device.type == "cuda", measured.get("memory", {})
        compared = "reserved_gib" if on_gpu else "allocated_gib"
        return case(
            setting.name,
            predicted.get(compared),
            memory.get(f"peak_{compared}") if measured["outcome"] == "completed" else None,
            settings={"axes": run.cell, "gradient_checkpointing": setting.checkpointing, "card": setting.card},
            emulated=on_gpu and memory.get("emulated", False),
            predicted=predicted,
            **measured,
        )

    def _card(self, setting: Setting) -> Card:
        """The card to be held to; its kernels are those of the device, whatever it stands in for."""
        if setting.card is None:
            return self.own
        card = load_card(setting.card, ROOT / "config/hardware")
        return card.model_copy(update={"compute_capability": self.own.compute_capability})

    def _write(self, name: str, content: Any) -> Path:
        path = self.folder / f"{name}.json"
        write_json(path, content)
        return path


@cache
def _study(name: str, scale: Scale) -> Study:
    return load_study(ROOT / f"config/studies/{name}.yaml", {"scale": scale})


def _started(files: dict[str, Path], name: str, device: torch.device, output: Path, log: Path) -> subprocess.Popen:
    """A process of its own for a case: a fresh allocator, and an error that ends no other case."""
    arguments = [f"--{key}={path}" for key, path in files.items()]
    command = [sys.executable, str(ROOT / "scripts/measure_step.py"), *arguments]
    command += [f"--name={name}", f"--device={device.type}", f"--output={output}"]
    with log.open("w", encoding="utf-8") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def _measured(process: subprocess.Popen, output: Path, log: Path, seconds: float) -> dict[str, Any]:
    """What the process wrote; why it failed where it wrote nothing."""
    try:
        process.wait(timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
        process.kill()
        return {"outcome": "failed", "reason": "the time was over"}
    if process.returncode or not output.is_file():
        return {
            "outcome": "failed",
            "reason": (log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1],
        }
    return json.loads(output.read_text(encoding="utf-8"))


def _predicted(run: Run, card: Card, device: torch.device, capped: bool) -> dict[str, Any]:
    """The prediction; a step that cannot be traced with this machine's packages is measured all the same."""
    try:
        return predict(run, card, device, capped)
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {error}"}


def show(found: Case) -> str:
    """A case as a line."""
    sizes = [found["predicted_gib"], found["measured_gib"]]
    numbers = " ".join(f"{'-' if size is None else f'{size:.3f}':>9}" for size in sizes)
    error = "-" if found["error_percent"] is None else f"{found['error_percent']:+.2f}%"
    seconds = (found.get("time") or {}).get("step_median_s")
    speed = "-" if seconds is None else f"{seconds:.3f}"
    why = found.get("reason") or found["predicted"].get("reason") or ""
    return f"{found['name']:<38} {numbers} {error:>8} {speed:>8}  {found['outcome']} {why}".rstrip()


def record(device: torch.device, gpu: str, cases: Sequence[Case], untried: int) -> dict[str, Any]:
    """The record of ``cases``, with the machine and the versions that they are from."""
    where = surroundings("cuda:0" if device.type == "cuda" else "cpu")
    return {
        "gpu": gpu,
        "source": "scripts/gpu_records.py",
        "task": f"fine-tuning, accumulation {ACCUMULATION}, random weights and data; predicted and measured by one program",
        "measures": "reserved" if device.type == "cuda" else "allocated",
        **{key: where[key] for key in KEPT},
        "cases": list(cases),
        "untried": untried,
    }


def file_name(gpu: str) -> str:
    """Such as ``nvidia-h200-2026-11-21.json``."""
    return f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{datetime.now(UTC):%Y-%m-%d}.json"


def main() -> None:
    """Measure case after case, write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks/records", help="folder of the records")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("error: no CUDA device is visible to torch; nothing was measured\n")
        sys.exit(NO_GPU)
    torch.set_num_threads(1)
    device, settings = torch.device(args.device), FULL if args.device == "cuda" else DEMO
    scale, cases = "full" if args.device == "cuda" else "demo", []
    sys.stdout.write(f"{'case':<38} {'predicted':>9} {'measured':>9} {'error':>8} {'s/step':>8}  outcome\n")
    with tempfile.TemporaryDirectory() as scratch:
        suite = Suite(scale, device, Path(scratch), SECONDS)
        output = args.folder / file_name(suite.own.name)
        for found in suite.cases(settings):
            cases.append(found)
            tqdm.write(show(found), file=sys.stdout)
            write_json(output, record(device, suite.own.name, cases, len(settings) - len(cases)))
    sys.stdout.write(f"{output}: {len(cases)} of {len(settings)} cases\n")


if __name__ == "__main__":
    call(main)
