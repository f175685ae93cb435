"""Measured numbers are what they are called."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ablation import nvml
from ablation.vram.budget import Budget
from ablation.vram.live import LiveTensors
from ablation.vram.measure import GIB, CpuMeter, StepClock, make_meter

MIB = 2**20
PLENTY = Budget("any", 1.0, emulated=True)


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
    meter = CpuMeter(PLENTY)
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
def test_cuda_meter_sees_an_allocation(gpu):
    meter = make_meter(gpu, PLENTY)
    meter.mark("forward")
    block = torch.empty(256 * MIB, dtype=torch.uint8, device=gpu)
    meter.mark("backward")
    del block
    meter.watch_step([])
    report = meter.report()
    assert report["phases"]["forward"]["allocated_gib"] >= 0.25 and report["peak_reserved_gib"] >= 0.25
    assert report["peak_device_gib"] is None or report["peak_device_gib"] > 0.25


def test_what_other_runs_hold_of_a_device_is_not_taken_for_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="x"))
    monkeypatch.setattr(nvml, "device_used_bytes", lambda _: 20 * 2**30)
    monkeypatch.setattr(nvml, "process_used_bytes", lambda _: 3 * 2**30)
    monkeypatch.setattr(nvml, "energy_joules", lambda _: 5.0)
    for share, used, energy in ((None, 20, 5.0), (8.0, 3, None)):
        meter = make_meter(torch.device("cuda"), replace(PLENTY, share_gib=share))
        meter.watch_step([])
        assert (meter._device_used, meter._energy) == (used * 2**30, energy)


def test_nvml_is_optional():
    uuids = nvml.gpu_uuids()
    assert isinstance(uuids, list)
    if not uuids:
        assert nvml.driver_version() is None and nvml.energy_joules("GPU-x") is None
