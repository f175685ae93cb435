"""Measured memory, time and energy of a run: per phase, on a CUDA device or on a CPU."""

import resource
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation import nvml
from ablation.vram.budget import GIB, Budget
from ablation.vram.live import LiveTensors

CUDA_PEAKS = {
    "active": "active_bytes.all.peak",
    "allocated": "allocated_bytes.all.peak",
    "reserved": "reserved_bytes.all.peak",
}

NOT_TRAINING = ("load", "preview")  # phases whose memory is not the training step's


class CudaMeter:
    """Peaks of PyTorch's caching allocator by phase, and the device as NVML sees it.

    Where other runs have a part of the device, only what NVML tells of this process is its own; the energy is nobody's.
    """

    kind = "cuda"

    def __init__(self, device: torch.device, budget: Budget):
        self.device, self.budget = device, budget
        self.phase: str | None = None
        self._peaks: dict[str, dict[str, int]] = {}
        self._device_used = 0
        self._uuid = str(torch.cuda.get_device_properties(device).uuid)
        self._shared = budget.share_gib is not None
        self._energy = None if self._shared else nvml.energy_joules(self._uuid)

    def mark(self, phase: str | None) -> None:
        """``phase`` begins; the one before it ends."""
        if self.phase is not None:
            stats = torch.cuda.memory_stats(self.device)
            seen = self._peaks.setdefault(self.phase, dict.fromkeys(CUDA_PEAKS, 0))
            for name, key in CUDA_PEAKS.items():
                seen[name] = max(seen[name], stats[key])
        torch.cuda.reset_peak_memory_stats(self.device)
        self.phase = phase

    def held(self) -> dict[str, float | None]:
        """What the allocator holds now, in GiB."""
        stats = torch.cuda.memory_stats(self.device)
        return {f"{name}_gib": stats[f"{name}_bytes.all.current"] / GIB for name in ("allocated", "reserved")}

    def peak_gib(self) -> float | None:
        """The peak that :meth:`report` would name, so far; None before there is one."""
        return max((peaks["allocated"] for peaks in self._training()), default=0) / GIB or None

    def _training(self) -> list[dict[str, int]]:
        """The peaks of the phases that count as training."""
        return [peaks for phase, peaks in self._peaks.items() if phase not in NOT_TRAINING]

    def peaks(self) -> dict[str, dict[str, int]]:
        """The peaks so far, for :meth:`restore` in a later attempt: bytes by phase and kind."""
        self.mark(self.phase)
        return {phase: dict(peaks) for phase, peaks in self._peaks.items()}

    def restore(self, peaks: dict[str, dict[str, int]]) -> None:
        """Go on from the peaks of an attempt before."""
        for phase, before in peaks.items():
            seen = self._peaks.setdefault(phase, dict.fromkeys(CUDA_PEAKS, 0))
            seen.update({name: max(seen[name], before[name]) for name in seen})

    def watch_load(self, existing: Iterable[Tensor]) -> None:
        """After loading: nothing to do, the allocator has seen it all."""

    def watch_step(self, existing: Iterable[Tensor]) -> None:
        """After each optimizer step: look at the device itself."""
        used = nvml.process_used_bytes if self._shared else nvml.device_used_bytes
        self._device_used = max(self._device_used, used(self._uuid) or 0)

    def report(self) -> dict[str, Any]:
        """All that was measured, in GiB."""
        self.mark(None)
        stats = torch.cuda.memory_stats(self.device)
        energy = nvml.energy_joules(self._uuid)
        return {
            "kind": self.kind,
            **self.budget.report(),
            **{f"peak_{name}_gib": max((peaks[name] for peaks in self._training()), default=0) / GIB for name in CUDA_PEAKS},
            "peak_device_gib": self._device_used / GIB or None,
            "peak_resident_gib": resident_peak_gib(),
            "allocator_retries": stats["num_alloc_retries"],
            "allocator_ooms": stats["num_ooms"],
            "phases": {phase: {f"{name}_gib": peaks[name] / GIB for name in peaks} for phase, peaks in self._peaks.items()},
            "energy_j": None if energy is None or self._energy is None else energy - self._energy,
        }


class CpuMeter:
    """On a CPU: live tensor memory by phase, counted during one step, and the resident size of the process.

    The budget holds for what is counted: the weights once they are loaded, and all tensors of that step. What would exceed
    it raises :class:`torch.OutOfMemoryError`.
    """

    kind = "cpu"
    COUNTED = 2  # the second step: the optimizer's state exists, and counting slows one step only

    def __init__(self, budget: Budget):
        self.budget = budget
        self.phase: str | None = None
        self._limit = int(budget.limit_gib * GIB)
        self._steps = 0
        self._tensors: LiveTensors | None = None
        self._peaks: dict[str, int] = {}

    def mark(self, phase: str | None) -> None:
        """``phase`` begins; the one before it ends."""
        if self._tensors is not None:
            if self.phase is not None:
                self._peaks[self.phase] = max(self._peaks.get(self.phase, 0), self._tensors.peak)
            self._tensors.reset_peak()
        self.phase = phase

    def held(self) -> dict[str, float | None]:
        """The live tensors, in GiB, while they are counted; nothing reserves memory on a CPU."""
        return {"allocated_gib": None if self._tensors is None else self._tensors.current / GIB, "reserved_gib": None}

    def peak_gib(self) -> float | None:
        """The peak that :meth:`report` would name, so far; None before there is one."""
        return max((peak for phase, peak in self._peaks.items() if phase not in NOT_TRAINING), default=0) / GIB or None

    def peaks(self) -> dict[str, int]:
        """The peaks so far, for :meth:`restore` in a later attempt: bytes by phase."""
        return dict(self._peaks)

    def restore(self, peaks: dict[str, int]) -> None:
        """Go on from the peaks of an attempt before."""
        self._peaks = {phase: max(peaks.get(phase, 0), self._peaks.get(phase, 0)) for phase in {**peaks, **self._peaks}}

    def watch_load(self, existing: Iterable[Tensor]) -> None:
        """After loading: the weights must fit."""
        LiveTensors(existing, self._limit)

    def watch_step(self, existing: Iterable[Tensor]) -> None:
        """After each optimizer step: start to count, or stop."""
        self._steps += 1
        if self._steps == self.COUNTED - 1:
            self._tensors = LiveTensors(existing, self._limit)
            self._tensors.__enter__()
        else:
            self._stop()

    def _stop(self) -> None:
        if self._tensors is not None:
            self.mark(None)
            self._tensors.__exit__(None, None, None)
            self._tensors = None

    def report(self) -> dict[str, Any]:
        """All that was measured, in GiB."""
        self._stop()
        return {
            "kind": self.kind,
            **self.budget.report(),
            "peak_allocated_gib": self.peak_gib(),
            "peak_resident_gib": resident_peak_gib(),
            "phases": {phase: {"allocated_gib": peak / GIB} for phase, peak in self._peaks.items()},
            "energy_j": None,
        }


Meter = CudaMeter | CpuMeter


def of_processes(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What processes of one training measured, as one: of the ``process`` that needed most, with all peaks (``ranks``)."""
    peaks = [report["peak_allocated_gib"] for report in reports]
    largest = max(range(len(reports)), key=lambda rank: peaks[rank] or 0.0)
    joules = [report["energy_j"] for report in reports]
    energy = None if None in joules else sum(joules)
    return {**reports[largest], "energy_j": energy, "process": largest + 1, "ranks": peaks}


def make_meter(device: torch.device, budget: Budget) -> Meter:
    """The meter for ``device``, under ``budget``."""
    return CudaMeter(device, budget) if device.type == "cuda" else CpuMeter(budget)


def resident_peak_gib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


class StepClock:
    """Times of optimizer steps, the first ones left out as warm-up.

    A GPU keeps its own time, by events between its kernels: a step's is read when its end has come, maybe steps later.
    """

    WARMUP = 3

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: list[float] = []
        self._started: Any = None
        self._running: deque[tuple[Any, Any]] = deque()

    def start(self) -> None:
        """A step begins."""
        self._started = self._now()

    def stop(self) -> None:
        """All of the step's work is given to the device."""
        self._running.append((self._started, self._now()))

    def read(self) -> float:
        """The seconds of the first step that was not read yet; waits for its end."""
        started, ended = self._running.popleft()
        if self.device.type == "cuda":
            ended.synchronize()
            self.seconds.append(started.elapsed_time(ended) / 1000)
        else:
            self.seconds.append(ended - started)
        return self.seconds[-1]

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

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
