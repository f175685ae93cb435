"""A few optimizer steps of a run on random weights and random data: what they take of memory and of time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ablation.gpus import visible_gpus
from ablation.neighbours import CardShared, of_place
from ablation.sweep import Run
from ablation.systems.base import System
from ablation.training.accelerator import accelerator_for
from ablation.training.model import fresh_for_training
from ablation.training.randomness import seed_everything
from ablation.training.step import TrainingStep
from ablation.training.strategy import count_parameters
from ablation.vram.budget import Budget
from ablation.vram.measure import Meter, StepClock, make_meter
from ablation.vram.oom import is_out_of_memory, out_of_memory, release_memory, spoiled


def measure(run: Run, system: System, device: torch.device, steps: int, budget: Budget) -> dict[str, Any]:
    """Outcome ``completed`` with memory (GiB, by phase) and time (s), or ``oom`` with what was asked for and when.

    Raises nothing for want of the device's memory, but for :class:`CardShared` where another process had it.
    """
    beside = of_place(device.index or 0, visible_gpus())
    probe, failure = _Probe(run, system, device, make_meter(device, budget)), None
    try:
        probe.train(steps)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        failure, neighbour = out_of_memory(error, probe.meter, probe.step), beside.found()
    if failure is None:
        return probe.record()
    release_memory(device)  # only here: the error's traceback is gone, and with it what its frames kept allocated
    if spoiled(failure, neighbour, probe.meter):
        raise CardShared(neighbour, beside)
    return {"outcome": "oom", "oom": failure, "memory": probe.meter.report()}


class _Probe:
    """The trainer's build and step, with a meter and a clock, without data, files and schedule."""

    def __init__(self, run: Run, system: System, device: torch.device, meter: Meter):
        self.run, self.system, self.device, self.meter = run, system, device, meter
        self.clock = StepClock(device)
        self.step: int | None = None  # under way

    def train(self, steps: int) -> None:
        """Build the model, take ``steps`` optimizer steps."""
        self.meter.mark("load")
        seed_everything(0)
        accelerator = accelerator_for(self.run, self.system, self.device)
        model = fresh_for_training(self.system, self.run, self.device)
        self.parameters = count_parameters(model)
        training_step, accumulation = TrainingStep(self.run, self.system, model, accelerator), self.run.axes["accumulation"]
        batch = self.system.fake_batch(self.run.axes["batch"])
        self.meter.watch_load(training_step.lasting())
        for self.step in range(1, steps + 1):
            self.clock.start()
            training_step(self._copies(batch, accumulation), accumulation, self.meter.mark)
            self.clock.stop()
            self.clock.read()
            self.meter.watch_step(training_step.lasting())

    def record(self) -> dict[str, Any]:
        """What was measured."""
        time = self.clock.report(self.run.effective_batch)
        return {"outcome": "completed", "parameters": self.parameters, "time": time, "memory": self.meter.report()}

    def _copies(self, batch: dict[str, Tensor], count: int) -> Iterator[dict[str, Tensor]]:
        """``batch`` in new memory each time, as it comes from a loader."""
        for _ in range(count):
            yield {name: value.to(self.device, copy=True) for name, value in batch.items()}
