"""A run of the demo study that is killed a hundred times, at any instant of its life."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import launch
import pytest
from conftest import ROOT, STUDY
from faults import survived
from test_faults import outcome

from ablation.attempts import Journal
from ablation.canonical import canonical
from ablation.parts import Part
from ablation.study import load_study
from ablation.sweep import Run, expand

pytestmark = [pytest.mark.fault, pytest.mark.long]

KILLS = int(os.environ.get("KILLS", "100"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Run, dict[str, Path], list[Path]]:
    """The first run of the demo study with its weights and prepared data; a checkpoint every other step."""
    folder = tmp_path_factory.mktemp("demo")
    run = expand(load_study(STUDY, {"training": {"checkpoint_every": 2}}), "vggt-eth3d")[0]
    for part in run.settings.parts():
        for each in reversed(list(part.closure())):
            make(each, folder)
    weights = {name: ROOT / path for name, path in run.settings.weight_files().items()}
    return run, weights, [folder / part.id for part in run.settings.parts()]


def make(part: Part, folder: Path) -> None:
    """One part of the data, by the program of the workflow's rule; what it needs is there."""
    content = canonical({"stage": part.stage, "name": part.name, "settings": part.settings})
    command = [sys.executable, ROOT / "scripts/prepare_part.py", "--system", "vggt", "--part", content]
    command += ["--needs", *(folder / need.id for need in part.needs), "--output", folder / part.id]
    if not (folder / part.id).exists():
        subprocess.run(command, check=True, cwd=ROOT)


def test_a_run_killed_at_random_ends_bit_for_bit_as_if_undisturbed(demo, tmp_path):
    run, weights, data = demo
    begun = time.monotonic()
    assert launch.train(run, tmp_path / "whole", weights, data).returncode == 0
    alone, begun, chance = time.monotonic() - begun, time.monotonic(), random.Random(1)
    folder, total = tmp_path / "victim", launch.record(tmp_path / "whole")["steps"]
    for kill in range(KILLS):
        process = launch.start(run, folder, weights, data)
        live(folder, chance.uniform(0, alone), total * kill // (KILLS + 1), chance.uniform(0, 0.5))
        process.kill()
        process.communicate()
    done = launch.train(run, folder, weights, data)
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(tmp_path / "whole")
    repeated = launch.record(folder)["attempts"]["repeated_steps"]
    attempts = [event for event in Journal(folder).events() if event["event"] == "train"]
    assert len(attempts) > 1 and Journal(folder).events()[-1]["how"] == "completed"
    seen = f"{len(attempts) - 1} kills struck while it trained its {total} steps, the others while it was loading"
    row = {"seconds": time.monotonic() - begun, "repeated": repeated, "same": "bit for bit"}
    survived(f"{KILLS} random kill -9 of the trainer during one demo run", "local", seen=seen, **row)


def live(folder: Path, seconds: float, steps: int, longer: float) -> None:
    """Wait some ``seconds``, or until ``steps`` steps are done and a little ``longer``: no attempt may come to the end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and steps_done(folder) <= steps:
        time.sleep(0.02)
    time.sleep(max(0, min(longer, end - time.monotonic())))


def steps_done(folder: Path) -> int:
    """Rows of the history less its head."""
    path = folder / "state/history.csv"
    return path.read_text().count("\n") - 1 if path.is_file() else 0
