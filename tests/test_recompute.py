"""What saves memory in the passes of a step changes no bit of losses and gradients: recomputing, and weights in host memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import small_vggt
import torch
from conftest import ROOT
from torch import nn

from ablation.ending import ending
from ablation.errors import UserError
from ablation.hardware import Card, load_card
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.systems.vggt.model import dpt_head
from ablation.training.host import fetching
from ablation.training.model import for_training
from ablation.training.recompute import chosen, reached, recompute
from ablation.training.strategy import count_parameters
from ablation.vram.budget import CONTEXT_GIB
from ablation.vram.predict import Predictor
from ablation.vram.replay import allocated_peak
from ablation.vram.step import count_recomputable, trace_step
from ablation.yamlfile import dump_yaml

CPU, ADA = torch.device("cpu"), "8.9"
HOST = {  # frozen modules of each system, without a gradient through them and with one
    "vggt-eth3d": ["camera_head", "aggregator", "depth_head"],
    "hunyuan3d-4090": ["vae", "conditioner", "model.blocks.*.attn*", "model.blocks.*.mlp"],
    "kolors-3x4090": ["text_encoder", "unet.down_blocks"],
    "rdt-batch": ["model.blocks.0-1"],
    "dit-images": ["transformer.transformer_blocks.0"],
}


def card(gib: float) -> Card:
    """A card with ``gib`` for PyTorch's allocator."""
    return load_card("rtx4090", ROOT / "config/hardware").model_copy(update={"usable_gib": gib + CONTEXT_GIB})


def demo(study: str, precision: str = "fp32", **strategy) -> Run:
    """A run of a study's demo, with another way of saving memory."""
    name = {"rdt-batch": "lora", "kolors-3x4090": "A", "dit-images": None}.get(study, "B")
    runs = expand(load_study(ROOT / f"config/studies/{study}.yaml", {"scale": "demo", "sweep": {"seed": 0}}), study)
    run = next(run for run in runs if name in (None, run.axes["strategy"])).with_axes(batch=2, precision=precision)
    return replace(run, strategy=run.strategy.model_copy(update={"gradient_checkpointing": False, **strategy}))


def network(run: Run) -> nn.Module:
    torch.manual_seed(0)
    weights = {name: ROOT / path for name, path in run.settings.weight_files().items()}
    return for_training(load_system(run.settings), run, weights, CPU)


def passes(run: Run) -> dict[str, torch.Tensor]:
    """Losses and gradients of two passes of each objective."""
    torch.set_num_threads(1)
    system, model, found = load_system(run.settings), network(run), {}
    for name in system.objectives:
        for number in range(2):
            torch.manual_seed(1 + number)
            loss = system.objective(model, system.fake_batch(2), name).loss
            loss.backward()
            found[f"{name} {number}"] = loss.detach()
    return found | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module", params=HOST)
def plain(request):
    """A study, and what is found without saving memory."""
    return request.param, passes(demo(request.param))


@pytest.mark.parametrize(
    "ways", [{"gradient_checkpointing": 2}, {"gradient_checkpointing": True}, {"host": True}, {"both": True}]
)
def test_losses_and_gradients_are_the_same_bit_for_bit(plain, ways):
    study, expected = plain
    changes = {"gradient_checkpointing": True, "host": True} if "both" in ways else dict(ways)
    if "host" in changes:
        changes["host"] = HOST[study]
    found = passes(demo(study, **changes))
    assert found.keys() == expected.keys() and len(found) > 4
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_gradients_reach_what_is_trained_and_all_that_follows():
    blocks, before = nn.ModuleList(nn.Linear(2, 2) for _ in range(4)), nn.Linear(2, 2)
    model = nn.Sequential(before, *blocks).requires_grad_(False)
    assert reached(blocks, model) == []
    blocks[2].requires_grad_(True)
    assert reached(blocks, model) == [*blocks[2:]]
    before.bias.requires_grad_(True)  # which may come before any
    assert reached(blocks, model) == [*blocks]


def test_what_ends_a_pass_is_not_recomputed():
    """Of the frames of a dense head the last chunk, with which the backward pass begins."""
    layer, calls = nn.Linear(2, 2), []
    layer.register_forward_pre_hook(lambda *_: calls.append(0))
    forward = layer.forward
    layer.forward = lambda x: calls.append(1) or forward(x)
    recompute([layer])
    first = layer(torch.ones(1, 2))
    with ending():
        last = layer(torch.ones(1, 2))
    assert calls == [0, 1, 0, 1]
    last.sum().backward()
    assert calls == [0, 1, 0, 1]
    first.sum().backward()
    assert calls == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("frames_at_once", [1, 2, 4])
def test_the_last_frames_of_the_dense_head_are_kept(monkeypatch, frames_at_once):
    """Recomputing holds less than keeping the head, or as much where its frames are one chunk."""
    monkeypatch.setattr(dpt_head, "PIXELS_AT_ONCE", 84 * 112 * frames_at_once)
    run = demo("vggt-eth3d")
    held = [allocated_peak(trace_step(run.recomputing(how), ADA)) for how in (0, 1)]
    assert held[1] == held[0] if frames_at_once == 4 else held[1] < held[0]


def test_the_last_ones_are_recomputed():
    units = [nn.Identity() for _ in range(4)]
    assert [len(chosen(units, how)) for how in (False, 1, 3, 9, True)] == [0, 1, 3, 4, 4]
    assert chosen(units, 1) == units[3:]


@pytest.mark.parametrize("study", ["vggt-eth3d", "hunyuan3d-4090", "kolors-3x4090"])
def test_weights_in_host_memory_are_counted_and_take_no_room(study):
    """On the card there is at most what one module computes with."""
    plain, lean = (demo(study, precision="bf16", host=host) for host in (None, HOST[study]))
    kept = [weight for found in fetching(network(lean)) for weight in found.weights.values()]
    assert count_parameters(network(lean)) == count_parameters(network(plain)) and len(kept) > 10
    traced = [trace_step(run, ADA) for run in (plain, lean)]
    assert traced[0].parameters == traced[1].parameters
    size = sum(weight.nbytes for weight in kept)
    assert size * 0.5 < allocated_peak(traced[0]) - allocated_peak(traced[1]) <= size


def test_modules_that_are_not_there_are_told():
    with pytest.raises(UserError, match=r"host: the pattern `camera_head.trnk` matches no module with parameters"):
        network(demo("vggt-eth3d", host=["camera_head.trnk"]))


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_auto_takes_the_fewest_blocks_that_fit(tmp_path):
    """As the trainer finds it, by itself or from what the plan has kept."""
    run, lines = demo("vggt-eth3d", gradient_checkpointing="auto"), []
    needs = [Predictor([run], card(23))(run.recomputing(how)).reserved for how in range(6)]
    assert needs[0] == needs[1] > needs[3] > needs[5]  # the dense head, whose frames are one chunk, then block after block
    for gib, expected in ((23, 0), (needs[3] * 1.04, None), (needs[5] * 1.04, None), (0.001, "all")):
        predictor = Predictor([run], card(gib), tmp_path)
        settled = predictor.settled(run)
        count = settled.strategy.gradient_checkpointing
        assert expected is None or count == (expected if expected != "all" else count_recomputable(run))
        assert predictor(run) == predictor(settled) and predictor.parameters(run) == predictor.parameters(settled)
        if expected != "all":
            assert predictor(run).verdict == "fits"
            assert count == 0 or predictor(run.recomputing(count - 1)).verdict != "fits"
        lines.append(count)
        kept, written = Predictor([run], card(gib), tmp_path), marks(tmp_path)
        assert kept.settled(run) == settled and kept.traces.traced == 0
        assert marks(tmp_path) == written, "what is known is read, by many jobs at once, and not written"
    assert 1 < lines[1] <= 3 <= lines[2] <= 5


def test_a_run_that_leaves_it_to_its_card_ends_bitwise_equal(scene_root, vggt, tiny, tmp_path):
    root = small_vggt.prepare(scene_root, vggt, tmp_path)
    plain, lean = (
        small_vggt.run_of(root, tiny, how=how)
        for how in (None, {"gradient_checkpointing": "auto", "host": ["aggregator", "camera_head"]})
    )
    small, cards = card(0.05), tmp_path / "cards"  # which cuBLAS alone would fill: nothing fits, so all is recomputed
    cards.mkdir()
    (cards / "rtx4090.yaml").write_text(dump_yaml(small.model_dump(mode="json")))
    count = Predictor([lean], small).settled(lean).strategy.gradient_checkpointing
    done = small_vggt.train(plain, root, "plain"), small_vggt.train(lean, root, "lean", cards=cards)
    assert [each.returncode for each in done] == [0, 0], done[1].stderr
    assert count == count_recomputable(lean) > 8 and f"recomputed to fit the card: the last {count} blocks" in done[1].stderr
    (_, losses, adapter), (_, again, same) = (small_vggt.result(root, folder) for folder in ("plain", "lean"))
    assert losses == again and all(torch.equal(adapter[name], same[name]) for name in adapter)
