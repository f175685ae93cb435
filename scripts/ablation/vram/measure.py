"""Measured memory, time and energy of a run: per phase, on a CUDA device or on a CPU."""

import resource
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation import nvml
from ablation.vram.live import LiveTensors

GIB = 2**30
CUDA_PEAKS = {
    "active": "active_bytes.all.peak",
    "allocated": "allocated_bytes.all.peak",
    "reserved": "reserved_bytes.all.peak",
}


class CudaMeter:
    """Peaks of PyTorch's caching allocator by phase, and the device as NVML sees it."""

    kind = "cuda"

    def __init__(self, device: torch.device):
        self.device = device
        self._phase: str | None = None
        self._peaks: dict[str, dict[str, int]] = {}
        self._device_used = 0
        self._uuid = str(torch.cuda.get_device_properties(device).uuid)
        self._energy = nvml.energy_joules(self._uuid)

    def mark(self, phase: str | None) -> None:
        """``phase`` begins; the one before it ends."""
        if self._phase is not None:
            stats = torch.cuda.memory_stats(self.device)
            seen = self._peaks.setdefault(self._phase, dict.fromkeys(CUDA_PEAKS, 0))
            for name, key in CUDA_PEAKS.items():
                seen[name] = max(seen[name], stats[key])
        torch.cuda.reset_peak_memory_stats(self.device)
        self._phase = phase

    def watch_step(self, existing: Iterable[Tensor]) -> None:
        """After each optimizer step: look at the device itself."""
        self._device_used = max(self._device_used, nvml.device_used_bytes(self._uuid) or 0)

    def report(self) -> dict[str, Any]:
        """All that was measured, in GiB."""
        self.mark(None)
        stats = torch.cuda.memory_stats(self.device)
        training = [peaks for phase, peaks in self._peaks.items() if phase != "load"]
        energy = nvml.energy_joules(self._uuid)
        return {
            "kind": self.kind,
            **{f"peak_{name}_gib": max((p[name] for p in training), default=0) / GIB for name in CUDA_PEAKS},
            "peak_device_gib": self._device_used / GIB or None,
            "peak_resident_gib": resident_peak_gib(),
            "allocator_retries": stats["num_alloc_retries"],
            "allocator_ooms": stats["num_ooms"],
            "phases": {phase: {f"{name}_gib": peaks[name] / GIB for name in peaks} for phase, peaks in self._peaks.items()},
            "energy_j": None if energy is None or self._energy is None else energy - self._energy,
        }


class CpuMeter:
    """On a CPU: live tensor memory by phase, counted during one step, and the resident size of the process."""

    kind = "cpu"
    COUNTED = 2  # the second step: the optimizer's state exists, and counting slows one step only

    def __init__(self):
        self._steps = 0
        self._tensors: LiveTensors | None = None
        self._phase: str | None = None
        self._peaks: dict[str, int] = {}

    def mark(self, phase: str | None) -> None:
        """``phase`` begins; the one before it ends."""
        if self._tensors is not None:
            if self._phase is not None:
                self._peaks[self._phase] = max(self._peaks.get(self._phase, 0), self._tensors.peak)
            self._tensors.reset_peak()
        self._phase = phase

    def watch_step(self, existing: Iterable[Tensor]) -> None:
        """After each optimizer step: start to count, or stop."""
        self._steps += 1
        if self._steps == self.COUNTED - 1:
            self._tensors = LiveTensors(existing)
            self._tensors.__enter__()
        elif self._tensors is not None:
            self.mark(None)
            self._tensors.__exit__(None, None, None)
            self._tensors = None

    def report(self) -> dict[str, Any]:
        """All that was measured, in GiB."""
        return {
            "kind": self.kind,
            "peak_allocated_gib": max(self._peaks.values()) / GIB if self._peaks else None,
            "peak_resident_gib": resident_peak_gib(),
            "phases": {phase: {"allocated_gib": peak / GIB} for phase, peak in self._peaks.items()},
            "energy_j": None,
        }


Meter = CudaMeter | CpuMeter


def make_meter(device: torch.device) -> Meter:
    """The meter for ``device``."""
    return CudaMeter(device) if device.type == "cuda" else CpuMeter()


def resident_peak_gib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


class StepClock:
    """Times of optimizer steps, the first ones left out as warm-up."""

    WARMUP = 3

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: list[float] = []
        self._start = 0.0

    def start(self) -> None:
        """A step begins."""
        self._start = time.perf_counter()

    def stop(self) -> float:
        """The step's work is done; returns its seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds.append(time.perf_counter() - self._start)
        return self.seconds[-1]

    def report(self, samples_per_step: int) -> dict[str, float | None]:
        """Median and 95th percentile in seconds, and the throughput at the median."""
        steady = self.seconds[self.WARMUP :] or self.seconds
        if not steady:
            return {"step_median_s": None, "step_p95_s": None, "samples_per_s": None}
        median, p95 = np.quantile(steady, [0.5, 0.95])
        return {
            "step_median_s": float(median),
            "step_p95_s": float(p95),
            "samples_per_s": samples_per_step / float(median),
        }
