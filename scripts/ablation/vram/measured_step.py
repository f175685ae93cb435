"""A few optimizer steps of a run on random weights and random data: the memory and the time that they take."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ablation.hardware import Card
from ablation.sweep import Run
from ablation.systems import load_system
from ablation.training.model import fresh_for_training
from ablation.training.optimizer import make_optimizer
from ablation.training.precision import make_accelerator
from ablation.training.randomness import seed_everything
from ablation.training.step import training_step
from ablation.vram.budget import hold_to_card
from ablation.vram.measure import Meter, StepClock, make_meter
from ablation.vram.oom import is_out_of_memory, out_of_memory, release_memory

STEPS = 6  # StepClock leaves the first three out


def measure_steps(run: Run, name: str, card: Card, device: torch.device) -> dict[str, Any]:
    """Outcome ``completed``, or ``oom`` with its record; memory in GiB, by phase, and time in s. Call in a fresh process.

    ``device`` is held to the memory of the card ``name``.
    """
    meter, clock, failure = make_meter(device, hold_to_card(name, card, device)), StepClock(device), None
    try:
        _train(run, device, meter, clock)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        failure = out_of_memory(error, meter, len(clock.seconds))
    if failure is not None:
        release_memory(device)  # only here: the error's traceback is gone, and with it what its frames kept
    outcome = {"outcome": "completed"} if failure is None else {"outcome": "oom", "oom": failure}
    return {**outcome, "memory": meter.report(), "time": clock.report(run.effective_batch)}


def _train(run: Run, device: torch.device, meter: Meter, clock: StepClock) -> None:
    """The trainer's model, optimizer and step, without data, files and schedule."""
    seed_everything(0)
    meter.mark("load")
    system, accumulation, training = load_system(run.settings), run.axes["accumulation"], run.settings.training
    accelerator = make_accelerator(run.axes["precision"], device)
    model = fresh_for_training(system, run, device)
    optimizer = make_optimizer(model, run.strategy.lr, training)
    model, optimizer = accelerator.prepare(model, optimizer)
    batch = system.fake_batch(run.axes["batch"])
    for _ in range(STEPS):
        clock.start()
        batches = _sent(batch, device, accumulation)
        training_step(system, model, optimizer, accelerator, batches, accumulation, training.clip, meter.mark)
        clock.stop()
        meter.watch_step(_lasting(model, optimizer))


def _sent(batch: dict[str, Tensor], device: torch.device, count: int) -> Iterator[dict[str, Tensor]]:
    """``count`` copies of ``batch`` on ``device``, each made when it is asked for."""
    for _ in range(count):
        sent = {name: value.to(device, copy=True) for name, value in batch.items()}
        yield sent


def _lasting(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    """Weights, buffers and optimizer state: what is live between steps."""
    yield from model.parameters()
    yield from model.buffers()
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
