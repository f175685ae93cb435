"""Measured numbers are what they are called."""

import multiprocessing
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from ablation import gpus, nvml
from ablation.vram.live import LiveTensors
from ablation.vram.measure import GIB, CpuMeter, StepClock, make_meter

MIB = 2**20


def test_live_tensors_counts_every_storage_once():
    weight = torch.zeros(MIB // 4)  # 1 MiB
    with LiveTensors([weight, weight.view(2, -1)]) as live:
        assert live.current == MIB
        a = weight + 1
        b = a.view(-1, 4)[1:]  # a view holds no memory of its own
        assert live.current == 2 * MIB
        del a
        assert live.current == 2 * MIB  # b still holds it
        c = torch.cat([weight, weight])
        assert live.current == 4 * MIB
        del b, c
        assert live.current == MIB and live.peak == 4 * MIB
        live.reset_peak()
        assert live.peak == MIB


def test_peak_of_a_backward_pass_is_known():
    """y = relu(x W) with x [n, n]: forward holds x, W, xW and y; backward adds the gradients."""
    n = 256
    size = n * n * 4
    x, linear = torch.randn(n, n), nn.Linear(n, n, bias=False)
    with LiveTensors([x, *linear.parameters()]) as live:
        y = torch.relu(linear(x))
        assert live.current == 4 * size - size  # xW is gone: relu keeps its result
        y.sum().backward()
    assert live.peak <= 5 * size + 64 and linear.weight.grad is not None


def test_cpu_meter_counts_one_step_by_phase():
    model = nn.Linear(512, 512)
    meter = CpuMeter()
    for _ in range(4):
        meter.mark("forward")
        loss = model(torch.ones(64, 512)).square().sum()
        meter.mark("backward")
        loss.backward()
        meter.mark("optimizer")
        model.zero_grad()
        meter.watch_step(model.parameters())
    report = meter.report()
    assert report["kind"] == "cpu" and set(report["phases"]) == {"forward", "backward", "optimizer"}
    weights = sum(p.nbytes for p in model.parameters()) / GIB
    assert weights < report["phases"]["forward"]["allocated_gib"] < report["phases"]["backward"]["allocated_gib"] < 3 * weights
    assert report["peak_resident_gib"] > 0.05


def test_step_clock_leaves_the_warm_up_out():
    clock = StepClock(torch.device("cpu"))
    clock.seconds = [9.0, 8.0, 7.0, 1.0, 1.0, 2.0]
    report = clock.report(samples_per_step=4)
    assert report["step_median_s"] == 1.0 and report["samples_per_s"] == 4.0 and 1.8 < report["step_p95_s"] < 2
    assert StepClock(torch.device("cpu")).report(1)["step_median_s"] is None


@pytest.mark.gpu
def test_cuda_meter_sees_an_allocation():
    device = torch.device("cuda")
    meter = make_meter(device)
    meter.mark("forward")
    block = torch.empty(256 * MIB, dtype=torch.uint8, device=device)
    meter.mark("backward")
    del block
    meter.watch_step([])
    report = meter.report()
    assert report["phases"]["forward"]["allocated_gib"] >= 0.25 and report["peak_reserved_gib"] >= 0.25
    assert report["peak_device_gib"] is None or report["peak_device_gib"] > 0.25


# --- GPU leases ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def _hold(folder, count, seconds, log):
    with gpus.lease_gpus(count, Path(folder)) as held:
        start = time.monotonic()
        time.sleep(seconds)
        with open(log, "a") as file:  # noqa: PTH123 - appended by several processes
            file.writelines(f"{name} {start} {time.monotonic()} {os.environ['CUDA_VISIBLE_DEVICES']}\n" for name in held)


def test_two_jobs_never_share_a_gpu(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    log, fork = tmp_path / "log", multiprocessing.get_context("fork")
    jobs = [fork.Process(target=_hold, args=(tmp_path / "locks", 1 + i % 2, 0.1, log)) for i in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
        assert job.exitcode == 0
    rows = [line.split() for line in log.read_text().splitlines()]
    assert len(rows) == 12 and {row[0] for row in rows} == {"0", "1"}
    for name in ("0", "1"):
        spans = sorted((float(start), float(end)) for gpu, start, end, _ in rows if gpu == name)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_a_killed_holder_frees_its_gpu(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    fork = multiprocessing.get_context("fork")
    holder = fork.Process(target=_hold, args=(tmp_path, 2, 60, tmp_path / "log"))
    holder.start()
    while sum(1 for _ in tmp_path.iterdir()) < 2:
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with gpus.lease_gpus(2, tmp_path) as held:
        assert held == ["0", "1"]


def test_preset_devices_are_respected_and_restored(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held == ["3"] and os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3, 5"
    with pytest.raises(RuntimeError, match="3 GPUs asked for, 2 visible"), gpus.lease_gpus(3, tmp_path):
        pass


def test_slurm_s_choice_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held == ["0"]
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_nothing_is_leased(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held == []


def test_nvml_is_optional():
    uuids = nvml.gpu_uuids()
    assert isinstance(uuids, list)
    if not uuids:
        assert nvml.driver_version() is None and nvml.energy_joules("GPU-x") is None
