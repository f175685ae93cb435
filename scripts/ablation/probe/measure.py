"""A few optimizer steps of a run on random weights and random data: what they take of memory and of time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ablation.sweep import Run
from ablation.systems.base import System
from ablation.training.model import fresh_for_training, lasting_tensors
from ablation.training.optimizer import make_optimizer
from ablation.training.precision import make_accelerator
from ablation.training.randomness import seed_everything
from ablation.training.step import training_step
from ablation.training.strategy import count_parameters
from ablation.vram.measure import GIB, StepClock, make_meter


def measure(run: Run, system: System, device: torch.device, steps: int, budget_gib: float) -> dict[str, Any]:
    """Outcome ``completed`` with memory (GiB, by phase) and time (s), or ``oom`` with what was asked for and when.

    ``budget_gib`` is the memory of the card that the run is for. Raises nothing for want of the device's memory.
    """
    probe, message = _Probe(run, system, device, budget_gib), None
    try:
        probe.train(steps)
    except torch.OutOfMemoryError as error:
        message = str(error).splitlines()[0]
    return probe.record() if message is None else probe.oom_record(message)


class _Probe:
    """The trainer's build and step, with a meter and a clock, without data, files and schedule."""

    def __init__(self, run: Run, system: System, device: torch.device, budget_gib: float):
        self.run, self.system, self.device = run, system, device
        self.budget_gib = _hold_to(budget_gib, run, device)
        self.meter, self.clock = make_meter(device), StepClock(device)
        self.phase = "load"

    def train(self, steps: int) -> None:
        """Build the model, take ``steps`` optimizer steps."""
        self._mark("load")
        seed_everything(0)
        accelerator = make_accelerator(self.run.axes["precision"], self.device)
        model = fresh_for_training(self.system, self.run, self.device)
        self.parameters = count_parameters(model)
        training, accumulation = self.run.settings.training, self.run.axes["accumulation"]
        optimizer = make_optimizer(model, self.run.strategy.lr, training)
        model, optimizer = accelerator.prepare(model, optimizer)
        batch = self.system.fake_batch(self.run.axes["batch"])
        self.meter.mark(None)
        for _ in range(steps):
            self.clock.start()
            batches = self._copies(batch, accumulation)
            training_step(self.system, model, optimizer, accelerator, batches, accumulation, training.clip, self._mark)
            self.clock.stop()
            self.meter.watch_step(lasting_tensors(model, optimizer))
            self._check_budget()

    def record(self) -> dict[str, Any]:
        """What was measured."""
        time = self.clock.report(self.run.effective_batch)
        return {"outcome": "completed", "parameters": self.parameters, "time": time, "memory": self.meter.report()}

    def oom_record(self, message: str) -> dict[str, Any]:
        """Where memory ran out, and what had been measured until then."""
        oom = {"message": message, "phase": self.phase, "budget_gib": self.budget_gib}
        return {"outcome": "oom", "oom": oom, "memory": self.meter.report()}

    def _copies(self, batch: dict[str, Tensor], count: int) -> Iterator[dict[str, Tensor]]:
        """``batch`` in new memory each time, as it comes from a loader."""
        for _ in range(count):
            yield {name: value.to(self.device, copy=True) for name, value in batch.items()}

    def _mark(self, phase: str) -> None:
        self.phase = phase
        self.meter.mark(phase)

    def _check_budget(self) -> None:
        """On a CPU no allocator stops at the budget: look at what was live."""
        phases = self.meter.report()["phases"] if self.device.type == "cpu" else {}
        for phase, peaks in phases.items():
            if peaks["allocated_gib"] > self.budget_gib:
                self.phase, live = phase, f"{peaks['allocated_gib']:.2f} GiB"
                raise torch.OutOfMemoryError(f"{live} of tensors were live at once, the budget is {self.budget_gib:g} GiB")


def _hold_to(budget_gib: float, run: Run, device: torch.device) -> float:
    """Let ``device`` give no more than the card has: the budget in GiB. A CPU has what the study asks of a machine."""
    if device.type == "cpu":
        return min(budget_gib, run.settings.compute.mem_gib)
    total = torch.cuda.get_device_properties(device).total_memory / GIB
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget_gib / total), device)
    return min(budget_gib, total)
