"""The GPU suite where there is no GPU: the same program on a CPU, and what it would predict for a GPU."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, STUDY

from ablation.hardware import load_card
from ablation.study import load_study
from ablation.vram.records import read_records
from ablation.vram.replay import replay
from ablation.vram.step import trace_step
from ablation.vram.suite import DEMO, FULL, phase_peaks, predict

PROGRAM = ROOT / "scripts/gpu_records.py"


@pytest.fixture(scope="module")
def trace():
    return trace_step(DEMO[1].run(load_study(STUDY)), "8.9")


def test_every_system_on_a_cpu(tmp_path):
    done = subprocess.run(
        [sys.executable, PROGRAM, "--device", "cpu", "--folder", tmp_path], capture_output=True, text=True, check=True
    )
    assert "7 of 7 cases" in done.stdout
    (record,) = read_records(tmp_path).values()
    assert {case["name"].split("-")[0] for case in record["cases"]} == {"vggt", "hunyuan3d", "rdt", "kolors", "dit"}
    assert record["measures"] == "allocated" and record["packages"]["torch"] and record["untried"] == 0
    for case in record["cases"]:
        assert case["outcome"] == "completed" and case["time"]["step_median_s"] > 0 and not case["emulated"]
        assert abs(case["error_percent"]) < 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    done = subprocess.run([sys.executable, PROGRAM, "--folder", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no CUDA device" in done.stderr and len(done.stderr.splitlines()) == 1


def test_peaks_by_phase_are_those_of_the_replay(trace):
    peak, phases = replay(trace), phase_peaks(trace)
    assert set(phases) == {"forward", "backward", "optimizer"}
    for name in ("allocated", "reserved"):
        assert max(found[f"{name}_gib"] for found in phases.values()) == getattr(peak, name) / 2**30


def test_a_replay_without_enough_memory_has_the_peaks_until_then(trace):
    limit = replay(trace).allocated // 2
    phases = phase_peaks(trace, limit)
    assert 0 < max(found["reserved_gib"] for found in phases.values()) <= limit / 2**30


def test_a_prediction_for_a_gpu(trace):
    card = load_card("rtx4090", ROOT / "config/hardware")
    found = predict(DEMO[1].run(load_study(STUDY)), card, torch.device("cuda"), capped=True)
    assert found["verdict"] == "fits" and found["reserved_gib"] == replay(trace).reserved / 2**30
    json.dumps(found, allow_nan=False)


def test_settings_differ_and_keep_their_checkpointing():
    assert len({setting.name for setting in FULL}) == len(FULL) > 50
    for setting in FULL[:8]:
        run = setting.run(load_study(ROOT / f"config/studies/{setting.study}.yaml", {"scale": "full"}))
        assert (run.rank, run.axes["batch"], run.strategy.gradient_checkpointing) == (
            setting.rank,
            setting.batch,
            setting.checkpointing,
        )
