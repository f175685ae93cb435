"""What programs say while their users wait: what they do before anything slow is begun, and how far they are."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT, STUDY
from workflow import copy_project

from ablation import waiting
from ablation.resolved import save_study
from ablation.study import load_study
from ablation.waiting import followed

CARDS = str(ROOT / "config/hardware")
ONE = "sweep={strategy: A, rank: 4, seed: 0}"
STOPS = 'import sys\nprint("torch is imported", file=sys.stderr)\nsys.exit(3)\n'


def test_what_is_quick_says_nothing(capsys):
    assert list(followed([1, 2, 3], "counting", 3, "sheep")) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_what_is_slow_says_how_far_it_is_and_not_that_it_has_ended(capsys, monkeypatch):
    monkeypatch.setattr(waiting, "EVERY_SECONDS", 0.0)
    assert list(followed([1, 2, 3], "counting", 3, "sheep")) == [1, 2, 3]
    assert capsys.readouterr().err.splitlines() == [f"counting: {number} of 3, about 0 s to go" for number in (1, 2)]


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(followed([1, 2], "counting", 2, "sheep")) == [1, 2]
    assert "counting:   0%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("plan_study.py", ["--on-cards", "on.csv", "--cards", CARDS], "planning for the "),
        ("predict_ladder.py", ["--cards", CARDS], "predicting the memory ladder on the "),
        ("compare_config.py", [], "predicting the memory of the recommended effective batch"),
        ("advise.py", [str(STUDY), "--gpu", "rtx4090", "--effective-batch", "8"], "predicting the memory of what makes"),
    ],
)
def test_a_program_says_what_it_does_before_it_imports_what_takes_seconds(tmp_path, program, arguments, words):
    """And so before it traces anything: importing torch ends it here."""
    (tmp_path / "torch.py").write_text(STOPS)
    save_study(tmp_path / "study.json", "vggt-eth3d", load_study(STUDY, {"scale": "full"}))
    if program != "advise.py":
        arguments = ["--study", str(tmp_path / "study.json"), *arguments, "--output", "out.csv"]
    command = [sys.executable, str(ROOT / "scripts" / program), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 3 and words in first and rest == ["torch is imported"]


def test_as_many_processes_trace_on_a_login_node_as_it_gives_cores(tmp_path):
    """Of all plans and ladders together: with a cluster's executor Snakemake does not count the cores of local jobs."""
    project, (core, *_) = copy_project(tmp_path / "project"), os.sched_getaffinity(0)
    made = [f"results/demo/vggt-eth3d/{name}.csv" for name in ("plan", "ladder")]
    command = [sys.executable, "-m", "snakemake", *made, "-p", "--profile", "slurm", "--config", ONE]
    done = subprocess.run(
        command, cwd=project, capture_output=True, text=True, check=False, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.findall(r"--workers \d+", done.stdout + done.stderr) == ["--workers 1"] * 2
    records = [json.loads(path.read_text()) for path in (project / ".snakemake/metadata").iterdir()]
    times = {rule: [record for record in records if record["rule"] == rule] for rule in ("plan_study", "predict_ladder")}
    spans = [(min(r["starttime"] for r in of), max(r["endtime"] for r in of)) for of in times.values()]
    (_, end), (start, _) = sorted(spans)
    assert end <= start, "one after the other"
