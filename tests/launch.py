"""Runs trained by the program, as the workflow's rule calls it, and what they leave."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from conftest import ROOT
from ready import Program

from ablation.sweep import Run
from ablation.yamlfile import dump_yaml

SMALL_PARTS = ROOT / "tests/small_parts.py"


def train(*job, **more) -> subprocess.CompletedProcess:
    """Train to the end; the job as :func:`start` takes it."""
    process = start(*job, **more)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def signal_after(words: str, number: signal.Signals, *job, **more) -> subprocess.CompletedProcess:
    """Train until ``words`` are said, then send the program a signal, and wait for its end, ``seconds`` later."""
    process, said = start(*job, **more), []
    for line in process.stderr:
        said.append(line)
        if words in line:
            break
    else:
        raise AssertionError(f"never said: {words}\n{''.join(said)}")
    process.send_signal(number)
    sent = time.monotonic()
    output, errors = process.communicate(timeout=300)
    done = subprocess.CompletedProcess(process.args, process.returncode, output, "".join(said) + errors)
    done.seconds = time.monotonic() - sent
    return done


def kill_after(words: str, *job, **more) -> None:
    """Train until ``words`` are said, then kill -9 the program and all that it started."""
    process = start(*job, **more)
    said = next((line for line in process.stderr if words in line), None)
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # those that it started end with it
            each.kill()
    process.communicate()
    assert said is not None, f"never said: {words}"


def start(
    run: Run,
    folder: Path,
    weights: Mapping[str, Path],
    data: Sequence[Path],
    cards: Path = ROOT / "config/hardware",
    program: Path = ROOT / "scripts/train_run.py",
    before: Callable[[], None] | None = None,
    base: Path | None = None,
    plan: Path | None = None,
    device: str = "cpu",
) -> Program:
    """Begin to train ``run`` in ``folder`` on ``device``, and to evaluate it where ``base`` has that of the pretrained model.

    ``before`` is called in the process first. With a ``plan`` it may share GPUs, as ``compute`` of its settings says.
    """
    description, view = folder.with_suffix(".yaml"), run.training_view
    if plan is not None:
        view["settings"]["compute"] = run.settings.compute.model_dump(mode="json")
    description.write_text(dump_yaml(view))
    command = [
        *(program, "--run", description, "--folder", folder),
        *("--weights", *(f"{name}={path}" for name, path in weights.items()), "--data", *data),
        *("--cards", cards, "--hashes", folder.parent / "hashes", "--device", device),
        *(["--base", base] if base else []),
        *(["--plan", plan] if plan else []),
    ]
    return Program(command, {**os.environ, "OMP_NUM_THREADS": "1"}, before)


def record(folder: Path) -> dict:
    """What the run says of itself."""
    return json.loads((folder / "training.json").read_text())


def history(folder: Path, name: str) -> list[float]:
    """A column of the run's history."""
    return [float(row[name]) for row in csv.DictReader((folder / "history.csv").open())]
