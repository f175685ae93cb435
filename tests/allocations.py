"""What a step really allocates on a CPU, by torch's profiler, which sees every allocation and nothing of ours."""

from collections.abc import Callable, Iterable

import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ablation.sweep import Run
from ablation.systems import load_system
from ablation.training.accelerator import make_accelerator
from ablation.training.model import fresh_for_training
from ablation.training.step import TrainingStep

CPU = torch.device("cpu")


def peak_of_step(run: Run) -> int:
    """Bytes of live tensors at the peak of the run's second optimizer step, with random weights."""
    AcceleratorState._reset_state(True)
    torch.manual_seed(0)
    system = load_system(run.settings)
    network = fresh_for_training(system, run, CPU)
    accelerator = make_accelerator(run.axes["precision"], CPU)
    training_step = TrainingStep(run, system, network, accelerator)
    batch, accumulation = system.fake_batch(run.axes["batch"]), run.axes["accumulation"]

    def step() -> None:
        batches = ({name: value.clone() for name, value in batch.items()} for _ in range(accumulation))
        training_step(batches, accumulation, lambda _: None)

    step()
    peak = storage_bytes(training_step.lasting()) + growth(step)
    AcceleratorState._reset_state(True)
    return peak


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages of ``tensors``."""
    return sum({x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in tensors}.values())


def growth(work: Callable[[], object]) -> int:
    """The most bytes that ``work`` holds at once beyond what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
