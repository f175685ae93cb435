"""The memory of one rank in data-parallel training, from a trace of the step in a single process.

Not modelled: NCCL's buffers and the second CUDA stream's pool of blocks, both of which depend on the machine; DDP's copies
of the model's buffers at each forward pass; the first two micro-batches of ZeRO-3, which gather less ahead than later ones.
"""

from dataclasses import dataclass, replace

from ablation.study import Distributed
from ablation.sweep import Run
from ablation.systems import system_class
from ablation.training.precision import COMPUTE
from ablation.vram.sharding.gathering import Limits
from ablation.vram.sharding.passes import of_kind, phases
from ablation.vram.sharding.rewrite import Rewrite
from ablation.vram.sharding.zero import Zero2, Zero3
from ablation.vram.trace import Trace

# torch/nn/parallel/distributed.py (_DEFAULT_BUCKET_CAP_MB) and torch/csrc/distributed/c10d/reducer.hpp
# (kDefaultFirstBucketBytes). Accelerate passes nothing on that is not asked for (accelerator.py, ``prepare_model``), so
# ``gradient_as_bucket_view`` is False: the buckets are a second copy of the gradients.
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20
ZERO_BUCKET, LIMITS = 200_000_000, Limits()  # of DeepSpeed, which training sets so (training/zero.py)


@dataclass(frozen=True)
class Sharding:
    """How a run is spread over ``gpus`` cards.

    ``zero2`` and ``zero3`` are DeepSpeed's stages with ``overlap_comm`` and ``contiguous_gradients``. ``offload``: the
    optimizer's state lives in host memory (``offload_optimizer``). ``bucket``: ``reduce_bucket_size``, in elements.
    ``gathered``: gradients of all passes of a step are reduced once, at its end (``coalesce_grad_reduction``).
    """

    gpus: int
    method: Distributed
    offload: bool = False
    bucket: int = ZERO_BUCKET
    limits: Limits = LIMITS
    gathered: bool = False


def sharding_of(run: Run) -> Sharding | None:
    """How ``run`` is spread; None where one process trains alone."""
    gpus, method = run.axes["gpus"], run.strategy.distributed
    if gpus == 1 and method == "ddp":
        return None
    gathered = run.strategy.backward == "each" and len(system_class(run.settings.system).objectives) > 1
    return Sharding(gpus, method, run.strategy.offload, ZERO_BUCKET, LIMITS, gathered)


def as_sharded(trace: Trace, run: Run) -> Trace:
    """``trace``, of the run's step in one process, as that of the rank which needs most."""
    sharding = sharding_of(run)
    return trace if sharding is None else per_rank(trace, sharding, COMPUTE[run.axes["precision"]].itemsize)


def per_rank(trace: Trace, sharding: Sharding, element: int) -> Trace:
    """The trace of that rank of ``sharding`` which needs most; ``trace`` is the same step in one process.

    It holds AdamW's steps from the run's first on, phases ``forward``, ``backward`` and ``optimizer``, and its trained
    weights, gradients and optimizer state are labelled. For ZeRO it is of the model as DeepSpeed holds it: parameters in the
    compute type, trained ones too, buffers as they are (engine.py, ``_cast_module_mixed_precision``).
    ``element``: bytes of an element of its trained weights. ZeRO-3 depends on the trace's ``modules``, too.
    """
    rewrite = Rewrite(trace)
    if sharding.method == "ddp":
        _ddp(rewrite)
    elif sharding.method == "zero2":
        Zero2(rewrite, sharding.gpus, sharding.offload, sharding.bucket, element).apply(sharding.gathered)
    elif trace.modules is None:
        raise ValueError("ZeRO-3 gathers weights by module: trace the step with ModuleCalls")
    else:
        Zero3(rewrite, sharding.gpus, sharding.offload, sharding.bucket, element, trace.modules, sharding.limits).apply(
            sharding.gathered
        )
    return replace(rewrite.trace(), parameters=trace.parameters)


def _ddp(rewrite: Rewrite) -> None:
    """One bucket for all gradients (``_ddp_init_helper``); smaller ones as from the forward pass after the first step."""
    trace = rewrite.old
    weights = trace.sizes[of_kind(trace, "trained_weights")].tolist()
    whole = rewrite.allocate(trace.existing - 0.5, sum(weights), "communication")
    steps = phases(trace, "optimizer")
    later = [start for start, _ in phases(trace, "forward") if steps and start > steps[0][0]]
    if later:
        rewrite.free(later[0], whole)
        for size in bucket_sizes(weights[::-1]):
            rewrite.allocate(later[0], size, "communication")


def bucket_sizes(gradients: list[int]) -> list[int]:
    """Bytes of each bucket for gradients in the order in which they come (``compute_bucket_assignment_by_size``)."""
    buckets = [0]
    for size in gradients:
        if buckets[-1] >= (FIRST_BUCKET if len(buckets) == 1 else BUCKET):
            buckets.append(0)
        buckets[-1] += size
    return buckets
