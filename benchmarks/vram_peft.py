"""Predicted against measured memory on public fine-tuning runs that are not ours.

    python benchmarks/vram_peft.py benchmarks/data/peft-image-gen.json [--record benchmarks/records/peft-l40s.json]

The file lists runs of PEFT's image-generation benchmark with the memory that they measured: FLUX.2-klein-base-4B under many
adapters on an NVIDIA L40S. Nothing here is fitted to them. Each run is built from its configuration on the meta device,
three steps are traced, and the trace is replayed as that benchmark runs: its cache emptied every 25 steps, reserved memory
read at the end of each step, less what a first small layer had reserved.
"""

import argparse
import copy
import json
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import diffusers
import peft
import torch
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm import tqdm

from ablation.files import write_json
from ablation.provenance import code_version
from ablation.vram import cuda
from ablation.vram.allocator import Block, CachingAllocator
from ablation.vram.fake import materialise, tensors_of
from ablation.vram.records import Case, case, errors_of
from ablation.vram.trace import Trace, Tracer

GIB = 2**30
GPU, L40S = "NVIDIA L40S", "8.9"  # compute capability
PACKAGES = ("torch", "peft", "diffusers", "transformers")
PROMPTS, TEXT_TOKENS, TEXT_DIM = 14, 512, 7680
BATCH, CHANNELS, SIDE = 2, 128, 32
TRACED = 3  # steps; the first has no optimizer state, the third begins as all later ones do
WINDOWS, STEPS_A_WINDOW = 8, 4  # after that the pattern repeats
NOT_OPTIONS = {"peft_type", "peft_version", "megatron_core", "rank_pattern"}


def build(model: dict[str, Any], run: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The network under its adapter, and the DINOv2 that stays beside it, on the meta device."""
    options = {name: value for name, value in model.items() if name not in ("cls", "total_parameters")}
    with torch.device("meta"):
        network = getattr(diffusers, model["cls"].rpartition(".")[2])(**options).to(torch.bfloat16)
        dino = transformers.Dinov2Model(transformers.Dinov2Config(image_size=518))
        network.enable_gradient_checkpointing()
        if run["peft_config"] is None:
            return network.train().requires_grad_(True), dino
        config = adapter_config(run["peft_config"])
        try:
            adapted = peft.get_peft_model(copy.deepcopy(network), config)
        except (RuntimeError, NotImplementedError):  # some methods draw their first values by reading others back
            with torch.device("cpu"):
                adapted = peft.get_peft_model(network, config)
    for module in adapted.modules():  # KaSA cut its weights when it was made; without any it would in the first step
        getattr(module, "_lora_kasa_truncation_deferred", set()).clear()
    return adapted.train(), dino


def adapter_config(found: dict[str, Any]) -> peft.PeftConfig:
    """The configuration of a run as the installed PEFT has it."""
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[found["peft_type"]]
    known = kind.__dataclass_fields__
    return kind(**{name: value for name, value in found.items() if name in known and name not in NOT_OPTIONS})


def trace(model: dict[str, Any], run: dict[str, Any]) -> Trace:
    """What is resident, then :data:`TRACED` steps."""
    network, dino = build(model, run)
    with cuda.like_cuda(), FakeTensorMode(allow_non_fake_inputs=True):
        materialise(dino)
        materialise(network)
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=True, **run["train_config"]["optimizer_kwargs"])
        with Tracer(workspace=cuda.cublas_workspace(L40S, None)) as tracer:
            tracer.add([*tensors_of(dino), *tensors_of(network)], "frozen_weights")
            caches = [
                torch.empty(PROMPTS, TEXT_TOKENS, TEXT_DIM, dtype=torch.bfloat16),
                torch.empty(PROMPTS, TEXT_TOKENS, 4, dtype=torch.int64),
                torch.empty(PROMPTS, CHANNELS, SIDE, SIDE, dtype=torch.bfloat16),
            ]
            tracer.add(caches, "batch")
            steps(network, optimizer, caches, tracer, run)
            return tracer.trace()


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, caches: list[Tensor], tracer: Tracer, run) -> None:
    """Flow-matching steps, written as a loop: what a step binds lives until the next one binds it again."""
    text, text_ids, latents = caches
    losses = []
    for step in range(1, TRACED + 1):
        chosen = torch.empty(BATCH, dtype=torch.int64)
        clean, prompt, prompt_ids = (x.index_select(0, chosen) for x in (latents, text, text_ids))
        places = torch.empty(BATCH, SIDE * SIDE, 4, dtype=torch.int64)
        noise = torch.randn_like(clean)
        times, sigma = torch.empty(BATCH), torch.empty(BATCH, 1, 1, 1, dtype=torch.bfloat16)
        noisy = (1 - sigma) * clean + sigma * noise
        tokens = noisy.flatten(2).transpose(1, 2)
        optimizer.zero_grad(set_to_none=True)
        tracer.mark("forward")
        out = network(
            hidden_states=tokens,
            timestep=times / 1000,
            guidance=None,
            encoder_hidden_states=prompt,
            txt_ids=prompt_ids,
            img_ids=places,
            return_dict=False,
        )[0]
        out = torch.stack(list(unpacked(out, places)))
        target = noise - clean
        loss = ((out.float() - target.float()) ** 2).mean()
        tracer.mark("backward")
        loss.backward()
        tracer.mark("optimizer")
        torch.nn.utils.clip_grad_norm_(network.parameters(), run["train_config"]["grad_norm_clip"])
        optimizer.step()
        if isinstance(getattr(network, "base_model", None), peft.AdaLoraModel):
            network.base_model.update_and_allocate(step)
        losses.append(loss)
        tracer.mark("end")


def unpacked(tokens: Tensor, places: Tensor) -> Iterator[Tensor]:
    """Tokens [B, N, C] scattered back to images [C, H, W]."""
    for sequence, place in zip(tokens, places, strict=True):
        flat = torch.zeros(SIDE * SIDE, CHANNELS, dtype=tokens.dtype)
        flat.scatter_(0, (place[:, 1] * SIDE + place[:, 2])[:, None].expand(-1, CHANNELS), sequence)
        yield flat.view(SIDE, SIDE, CHANNELS).permute(2, 0, 1)


def reserved_at_step_ends(found: Trace) -> list[int]:
    """Bytes reserved at the end of each step of a long run."""
    allocator = CachingAllocator()
    first = allocator.allocate(4)
    allocator.free(first)
    before = allocator.reserved
    live: dict[int, Block] = {}
    sizes, events = found.sizes.tolist(), found.events.tolist()

    def run(part: list[int]) -> None:
        for event in part:
            if event > 0:
                live[event] = allocator.allocate(sizes[event - 1])
            else:
                allocator.free(live.pop(-event))
        ends.append(allocator.reserved - before)

    ends: list[int] = []
    stops = [found.existing, *(mark.event for mark in found.marks if mark.phase == "end")]
    run(events[: found.existing])
    allocator.empty_cache()
    ends.clear()
    parts = [events[start:stop] for start, stop in pairwise(stops)]
    for part in parts:
        run(part)
    for _ in range(WINDOWS):
        allocator.empty_cache()
        for _ in range(STEPS_A_WINDOW):
            for old, new in handed_over(*parts[-2:]):
                live[old] = live.pop(new)
            run(parts[-1])
    return ends


def handed_over(before: list[int], last: list[int]) -> list[tuple[int, int]]:
    """Storages that the last step takes over from the one before and frees, with those it leaves in their place."""
    left, leaves = survivors(before), survivors(last)
    if len(left) != len(leaves):
        raise RuntimeError("its steps differ from each other")
    freed = {-event for event in last if event < 0}
    return [(old, new) for old, new in zip(left, leaves, strict=True) if old in freed]


def survivors(part: list[int]) -> list[int]:
    """Storages that are allocated and not freed."""
    freed = {-event for event in part if event < 0}
    return [event for event in part if event > 0 and event not in freed]


def predictions(content: dict[str, Any]) -> Iterator[Case | str]:
    """A case for each run of the file, as it is ready; a line where a run cannot be traced."""
    for run in tqdm(content["runs"], disable=not sys.stderr.isatty(), leave=False):
        try:
            predicted = max(reserved_at_step_ends(trace(content["model"], run)))
        except Exception as error:  # whatever a method does that cannot be traced
            yield f"{run['name']}: {type(error).__name__}: {str(error).splitlines()[0][:150]}"
        else:
            yield case(run["name"], predicted / GIB, run["max_memory_reserved_bytes"] / GIB)


def show(found: Case) -> None:
    """A line of the table."""
    numbers = f"{found['predicted_gib']:>10.3f} {found['measured_gib']:>10.3f} {found['error_percent']:>+7.2f}%"
    tqdm.write(f"{found['name']:<40} {numbers}", file=sys.stdout)


def record_of(content: dict[str, Any], cases: list[Case], untraced: list[str]) -> dict[str, Any]:
    """The record of these predictions, with where the measurements are from and what predicted them."""
    return {
        "gpu": GPU,
        "source": content["source"],
        "task": content["task"],
        "measures": "reserved",
        "predicted_by": {"code": code_version(), "packages": {name: version(name) for name in PACKAGES}},
        "cases": cases,
        "untraced": untraced,
    }


def main() -> None:
    """Predict every run of a file, print a table and the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="a file such as benchmarks/data/peft-image-gen.json")
    parser.add_argument("--record", type=Path, help="write predicted and measured memory to this file, JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    content = json.loads(args.runs.read_text())
    cases, untraced = [], []
    sys.stdout.write(f"{'run':<40} {'predicted':>10} {'measured':>10} {'error':>8}\n{'':<40} {'GiB':>10} {'GiB':>10}\n")
    for found in predictions(content):
        if isinstance(found, str):
            untraced.append(found)
        else:
            cases.append(found)
            show(found)
    if (size := errors_of(cases)) is not None:
        numbers = f"median {size.median:.2f} %, mean {size.mean:.2f} %, maximum {size.maximum:.2f} %"
        sys.stdout.write(f"\n{size.count} runs, reserved memory: {numbers}\n")
    for line in untraced:
        sys.stdout.write(f"not traced: {line}\n")
    if args.record:
        write_json(args.record, record_of(content, cases, untraced))


if __name__ == "__main__":
    main()
