"""One optimizer step of a run, traced: the trainer's own step, on fake tensors."""

from collections.abc import Container, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ablation.errors import UserError
from ablation.patterns import below
from ablation.rounds import at_most
from ablation.sweep import Run
from ablation.systems import load_system
from ablation.systems.base import System
from ablation.training.accelerator import make_accelerator
from ablation.training.model import adapted
from ablation.training.precision import COMPUTE
from ablation.training.randomness import CUBLAS_WORKSPACES
from ablation.training.recompute import reached
from ablation.training.step import TrainingStep, Untrainable, optimizer_tensors
from ablation.training.strategy import apply_strategy, count_parameters
from ablation.training.targets import adaptable_modules, modules
from ablation.vram import cuda
from ablation.vram.fake import materialise, tensors_of
from ablation.vram.sharding.module_calls import ModuleCalls, zero3_linear
from ablation.vram.trace import MICRO_STEPS, Trace, Tracer, Untraceable

ADAPTED = "base_model.model."  # before the names of a network that PEFT wraps
CPU = torch.device("cpu")
ROUNDS = 2  # of a loop over the batch: the first allocates, the second finds its place
GATHERING_STEPS = 3  # ZeRO-3 gathers ahead as from the second forward pass, and as it always will from the third


def trace_step(run: Run, compute_capability: str) -> Trace:
    """The first optimizer step of ``run`` as a CUDA device of that capability would allocate it; under ZeRO-3, the first few.

    In one process: :func:`ablation.vram.sharding.rank.as_sharded` makes it a rank's. Needs no GPU, weights or data. Raises
    :class:`Untraceable`.
    """
    system = load_system(run.settings)
    workspace = cuda.cublas_workspace(compute_capability, CUBLAS_WORKSPACES)
    try:
        model = _built(system, run)
        with cuda.like_cuda(), FakeTensorMode(allow_non_fake_inputs=True):
            return _trace(system, run, model, Tracer(workspace))
    except Untrainable as error:
        raise Untraceable(_untrainable(run, str(error))) from error
    except UserError:
        raise
    except Exception as error:  # whatever a step does that fake tensors cannot
        raise Untraceable(_untraceable(run, error)) from error
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def trace_step_on_cpu(run: Run) -> Trace:
    """The same as a CPU allocates it: what the predictor is checked against where there is no GPU."""
    system = load_system(run.settings)
    model = _built(system, run)
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _trace(system, run, model, Tracer())


def _built(system: System, run: Run) -> nn.Module:
    """The network of ``run`` without memory; for ZeRO as DeepSpeed holds it: trained weights in the compute type, too."""
    with torch.device("meta"):
        model = adapted(system, run, system.build()).train()
    if run.strategy.distributed != "ddp":
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(COMPUTE[run.axes["precision"]])
    return model


def count_recomputable(run: Run) -> int:
    """The blocks of ``run`` that gradients go through."""
    system = load_system(run.settings)
    with torch.device("meta"):
        network = system.build()
        units = system.recomputable(network)
        return len(reached(units, apply_strategy(network, run.strategy, run.rank, run.settings.lora)))


def check_patterns(runs: Iterable[Run]) -> None:
    """Raises :class:`UserError` where the patterns of a strategy match nothing in its network: at once, no step is traced."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(run.settings.step_hash, []).append(run)
    for first, *others in alike.values():
        with torch.device("meta"):
            network = load_system(first.settings).build()
        for run in (first, *others):
            train = run.strategy.train
            adaptable_modules(network, train.lora or ())
            modules(network, train.full or ())
            modules(network, run.strategy.host or (), "host")


def _trace(system: System, run: Run, model: nn.Module, tracer: Tracer) -> Trace:
    materialise(model)
    weights, trained = list(tensors_of(model)), [p for p in model.parameters() if p.requires_grad]
    reached: set[nn.Parameter] = set()
    step = TrainingStep(run, system, model, _accelerator(run.axes["precision"]))
    micro_steps = min(run.axes["accumulation"], MICRO_STEPS)
    like = system.fake_batch(run.axes["batch"])

    def mark(phase: str) -> None:
        if phase == "optimizer":
            reached.update(step.sharing.reached())
            tracer.label([p.grad for p in trained if p.grad is not None], "gradients")
        tracer.mark(phase)

    def batches() -> Iterator[dict[str, Tensor]]:
        for _ in range(micro_steps):
            batch = {name: torch.empty_like(value) for name, value in like.items()}
            tracer.label(batch.values(), "batch")
            yield batch

    counts, gathers = count_parameters(model), run.strategy.distributed == "zero3"
    with tracer, at_most(ROUNDS), zero3_linear() if gathers else nullcontext():
        for tensor in weights:
            tracer.add([tensor], "trained_weights" if tensor.requires_grad else "frozen_weights")
        if step.average is not None:
            tracer.add(step.average.weights, "optimizer")
        modules = ModuleCalls(model, tracer) if gathers else None
        for _ in range(GATHERING_STEPS if gathers else 1):
            step(batches(), micro_steps, mark)
        _check_reached(run, model, reached)
        tracer.label(optimizer_tensors(step.optimizer), "optimizer")
        parameters = counts["total"], counts["trainable"]
        return replace(tracer.trace(), parameters=parameters, modules=modules and modules.found)


def _check_reached(run: Run, model: nn.Module, reached: Container[nn.Parameter]) -> None:
    """Raises :class:`Untrainable` for a pattern of the strategy nothing of which got a gradient."""
    names = [name.removeprefix(ADAPTED) for name, parameter in model.named_parameters() if parameter in reached]
    for pattern in run.strategy.train.patterns:
        if not any(below(name, pattern) for name in names):
            raise Untrainable(f"nothing of `{pattern}` takes part in the loss; take it out of train")


def _untrainable(run: Run, why: str) -> str:
    trains = ", ".join(run.strategy.train.patterns)
    frozen = "no objective reads it, or it is frozen by design"
    return f"untrainable: strategy {run.axes['strategy']} trains {trains}: {why} ({frozen})"


def _accelerator(precision: str) -> Accelerator:
    """The trainer's, with loss scaling switched off: it reads values back, and holds but a few numbers."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = make_accelerator("fp32" if precision == "tf32" else precision, CPU)
    accelerator.scaler = torch.amp.GradScaler("cpu", enabled=False)
    return accelerator


def _untraceable(run: Run, error: Exception) -> str:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/ablation/systems/" in code.co_filename:
            frames.append(f"{code.co_filename.rpartition('/scripts/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    where = f", at {frames[-1]}" if frames else ""
    return (
        f"the memory of system {run.settings.system} cannot be predicted: its step cannot be traced{where}\n"
        f"  {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}\n"
        "  a step must not read values back from the device (.item(), boolean indexing, nonzero); see docs/memory.md"
    )
