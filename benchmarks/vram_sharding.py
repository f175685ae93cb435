"""Predicted against measured memory of a rank in data-parallel training, on two CPU processes.

    python benchmarks/vram_sharding.py

A small transformer under LoRA is trained through Accelerate by two gloo processes: DDP, and ZeRO-2 and ZeRO-3 with the
optimizer on the device and offloaded. All live tensors are counted. The prediction is a trace of the same step in a single
process on fake tensors, which :func:`ablation.vram.sharding.rank.per_rank` makes a rank's. The measured figures are written to
benchmarks/data/sharding.json, which the tests compare with. It takes about three minutes, one of them once to compile.

On a CPU all offloaded memory is on the "device" too: what DeepSpeed keeps for the host is known by name, and subtracted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from ablation.vram.fake import materialise, tensors_of
from ablation.vram.live import LiveTensors
from ablation.vram.sharding.gathering import Limits
from ablation.vram.sharding.module_calls import ModuleCalls, zero3_linear
from ablation.vram.sharding.rank import Sharding, per_rank
from ablation.vram.trace import Trace, Tracer

MIB = 2**20
MEASURED = Path(__file__).parent / "data/sharding.json"
GPUS, MICRO_BATCHES, STEPS = 2, 2, 3
BATCH, TOKENS, WIDTH, DEPTH, HEADS, RANK, CLIP = 4, 64, 256, 4, 4, 32, 1.0
BUCKET = 200_000  # elements: several times a step
LIMITS = Limits(100_000, 1_000_000, 1_000_000, 10_000)  # small enough to matter here


@dataclass(frozen=True)
class Case:
    """How the transformer is trained."""

    sharding: Sharding
    lora: bool = True
    checkpointing: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """That of all weights."""
        return torch.float32 if self.sharding.method == "ddp" else torch.bfloat16


CASES = {
    "ddp": Case(Sharding(GPUS, "ddp")),
    "zero2": Case(Sharding(GPUS, "zero2", False, BUCKET)),
    "zero2-full": Case(Sharding(GPUS, "zero2", False, BUCKET), lora=False),
    "zero2-offload": Case(Sharding(GPUS, "zero2", True, BUCKET)),
    "zero3": Case(Sharding(GPUS, "zero3", False, BUCKET, LIMITS)),
    "zero3-full": Case(Sharding(GPUS, "zero3", False, BUCKET, LIMITS), lora=False),
    "zero3-checkpointing": Case(Sharding(GPUS, "zero3", False, BUCKET, LIMITS), checkpointing=True),
    "zero3-offload": Case(Sharding(GPUS, "zero3", True, BUCKET, LIMITS)),
}


class Block(nn.Module):
    """Attention and a perceptron."""

    def __init__(self, checkpointing: bool):
        super().__init__()
        self.checkpointing = checkpointing
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N, C]."""
        return checkpoint(self._forward, x, use_reentrant=False) if self.checkpointing else self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def build(case: Case) -> nn.Module:
    """The transformer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), *(Block(case.checkpointing) for _ in range(DEPTH)), nn.Linear(WIDTH, WIDTH))
    if not case.lora:
        return model
    return get_peft_model(model, LoraConfig(r=RANK, target_modules=["qkv", "out", "up", "down"])).train()


def trace(case: Case) -> Trace:
    """The run in a single process, with the module as the method holds it."""
    linear = zero3_linear() if case.sharding.method == "zero3" else nullcontext()
    with torch.device("meta"):
        model = build(case).to(case.dtype)
    with linear, FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        materialise(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        with Tracer() as tracer:
            for tensor in tensors_of(model):
                tracer.add([tensor], "trained_weights" if tensor.requires_grad else "frozen_weights")
            modules = ModuleCalls(model, tracer)
            for _ in range(STEPS):
                step(model, trained, optimizer, tracer, case.dtype)
            return replace(tracer.trace(), modules=modules.found)


def step(model: nn.Module, trained: list[nn.Parameter], optimizer, tracer: Tracer, dtype: torch.dtype) -> None:
    """An optimizer step as :func:`train` takes it."""
    for _ in range(MICRO_BATCHES):
        tracer.mark("forward")
        x = torch.randn(BATCH, TOKENS, WIDTH, dtype=dtype)
        tracer.label([x], "batch")
        loss = model(x).float().square().mean() / MICRO_BATCHES
        del x
        tracer.mark("backward")
        loss.backward()
        tracer.label((p.grad for p in trained), "gradients")
        del loss
    tracer.mark("optimizer")
    nn.utils.clip_grad_norm_(trained, CLIP)
    optimizer.step()
    for state in optimizer.state.values():
        tracer.label((state["exp_avg"], state["exp_avg_sq"]), "optimizer")
    optimizer.zero_grad()


def peaks(found: Trace) -> dict[str, int]:
    """Bytes before the last step and the most in each of its phases."""
    live = np.cumsum(np.sign(found.events) * found.sizes[np.abs(found.events) - 1])
    ends = [*(mark.event for mark in found.marks[1:]), len(found.events)]
    count = 2 * MICRO_BATCHES + 1
    phases: dict[str, int] = {"between": int(live[found.marks[-count].event - 1])}
    for mark, end in list(zip(found.marks, ends, strict=True))[-count:]:
        phases[mark.phase] = max(phases.get(mark.phase, 0), int(live[mark.event - 1 : end].max()))
    return phases


def predict(case: Case) -> dict[str, int]:
    """Bytes of a rank, by :func:`peaks`."""
    return peaks(per_rank(trace(case), case.sharding, case.dtype.itemsize))


def deepspeed_config(sharding: Sharding) -> dict:
    """DeepSpeed's configuration of a case."""
    zero = {
        "stage": int(sharding.method[-1]),
        "reduce_bucket_size": sharding.bucket,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "stage3_prefetch_bucket_size": sharding.limits.prefetch_bucket_size,
        "stage3_max_live_parameters": sharding.limits.max_live_parameters,
        "stage3_max_reuse_distance": sharding.limits.max_reuse_distance,
        "stage3_param_persistence_threshold": sharding.limits.param_persistence_threshold,
    }
    if sharding.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": True},
        "gradient_accumulation_steps": MICRO_BATCHES,
        "gradient_clipping": CLIP,
        "train_micro_batch_size_per_gpu": BATCH,
        "steps_per_print": 10**9,
    }


def host_tensors(optimizer) -> Iterator[Tensor]:
    """What a DeepSpeed optimizer keeps in host memory when it is offloaded (stage_1_and_2.py, stage3.py)."""
    stage3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    masters = optimizer.fp32_partitioned_groups_flat if stage3 else optimizer.single_partition_of_fp32_groups
    yield from masters
    yield from (master.grad for master in masters)
    for state in optimizer.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
    if stage3:
        yield optimizer.grad_partitions_flat_buffer
    else:
        yield from optimizer.param_buffer_of_bit16_for_cpu_offload_groups
        yield from optimizer.accumulated_grads_in_cpu.values()
        yield optimizer.temp_grad_buffer_for_cpu_offload


class Meter:
    """Live tensors by phase of a step."""

    def __init__(self, live: LiveTensors):
        self.live, self.phase = live, None
        self.peaks: dict[str, int] = {}

    def mark(self, phase: str | None) -> None:
        """``phase`` begins."""
        if self.phase is not None:
            self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.live.peak)
        self.live.reset_peak()
        self.phase = phase


def train(case: Case, output: Path) -> None:
    """What each of the processes does; each writes what it measured."""
    from accelerate import Accelerator, DeepSpeedPlugin
    from accelerate.utils import InitProcessGroupKwargs

    sharding = case.sharding
    gloo = InitProcessGroupKwargs(backend="gloo")
    with LiveTensors([]) as live:
        if sharding.method == "ddp":
            accelerator = Accelerator(cpu=True, kwargs_handlers=[gloo], gradient_accumulation_steps=MICRO_BATCHES)
        else:
            plugin = DeepSpeedPlugin(hf_ds_config=deepspeed_config(sharding))
            accelerator = Accelerator(deepspeed_plugin=plugin, kwargs_handlers=[gloo])
        model = build(case)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        model, optimizer = accelerator.prepare(model, optimizer)
        meter = Meter(live)
        if sharding.method != "ddp":
            begin_with_mark(model, meter)
        for _ in range(STEPS + 1):  # ZeRO-3 is steady as from its third forward pass
            between = live.current
            meter.peaks.clear()
            run_step(accelerator, model, optimizer, meter)
        host = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in host_of(optimizer, sharding)}
        found = {name: value - sum(host.values()) for name, value in {"between": between, **meter.peaks}.items()}
    (output / f"{accelerator.process_index}.json").write_text(json.dumps(found))


def host_of(optimizer, sharding: Sharding) -> list[Tensor]:
    """What counts as host memory."""
    return list(host_tensors(optimizer.optimizer)) if sharding.offload else []


def begin_with_mark(engine, meter: Meter) -> None:
    """DeepSpeed's step runs within Accelerate's ``backward``: mark where it begins."""
    take_step = engine.step

    def marked(*args, **kwargs):
        meter.mark("optimizer")
        return take_step(*args, **kwargs)

    engine.step = marked


def run_step(accelerator, model: nn.Module, optimizer, meter: Meter) -> None:
    """An optimizer step, as a loop on Accelerate has it."""
    dtype = next(model.parameters()).dtype
    for _ in range(MICRO_BATCHES):
        with accelerator.accumulate(model):
            meter.mark("forward")
            x = torch.randn(BATCH, TOKENS, WIDTH, dtype=dtype)
            loss = model(x).float().square().mean()
            del x  # Accelerate's backward takes DeepSpeed's step too
            meter.mark("backward")
            accelerator.backward(loss)
            del loss
            if accelerator.sync_gradients:
                if meter.phase != "optimizer":
                    meter.mark("optimizer")
                accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
    meter.mark(None)


def measure(case: str) -> dict[str, int]:
    """Bytes of the rank that needs most, for each phase, by a real run of this file under torchrun."""
    with tempfile.TemporaryDirectory() as output:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(GPUS)]
        # DeepSpeed compiles its operators with g++ and the ninja beside this Python
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
        command = [*launch, __file__, "--worker", case, "--output", output]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        ranks = [json.loads(file.read_text()) for file in sorted(Path(output).glob("*.json"))]
    return {phase: max(rank[phase] for rank in ranks) for phase in ranks[0]}


def main() -> None:
    """Measure all cases, print them beside the predictions, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.worker:
        train(CASES[args.worker], args.output)
        return
    measured = {}
    sys.stdout.write(f"{'':<31} {'predicted':>10} {'measured':>10} {'error':>8}\n{'':<31} {'MiB':>10} {'MiB':>10}\n")
    for name, case in CASES.items():
        predicted, measured[name] = predict(case), measure(name)
        for phase, size in predicted.items():
            real = measured[name][phase]
            numbers = f"{size / MIB:>10.3f} {real / MIB:>10.3f} {100 * (size / real - 1):>+7.2f}%"
            sys.stdout.write(f"{name:<20} {phase:<10} {numbers}\n")
    MEASURED.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
