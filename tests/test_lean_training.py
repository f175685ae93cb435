"""Training in less memory: moments in 8 bits, weights in bf16, the step in the backward pass, frozen weights in few bits."""

import gc
import json
import math
import subprocess
import sys
import weakref

import pytest
import torch
from accelerate.state import AcceleratorState
from allocations import peak_of_step
from conftest import ROOT
from peft import PeftModel
from pydantic import ValidationError
from shapes import ATTENTION, CPU, networks, prepare_shapes, run_of, save_networks, trainer, write_meshes
from torch import nn
from torch.nn import functional as F

from ablation.evaluation import evaluate
from ablation.hardware import load_card
from ablation.preflight import unsupported
from ablation.study import Strategy, load_study
from ablation.sweep import expand
from ablation.systems.hunyuan3d.model import grouped
from ablation.systems.hunyuan3d.system import System
from ablation.training.adamw8bit import AdamW8bit, stochastically_rounded
from ablation.training.frozen import QuantisedLinear, quantise_frozen
from ablation.training.model import adapted, for_training
from ablation.training.strategy import count_parameters
from ablation.vram.predict import Predictor
from ablation.vram.replay import allocated_peak
from ablation.vram.step import trace_step_on_cpu

STUDY = ROOT / "config/studies/hunyuan3d-4090.yaml"
WHOLE, LORA = {"train": {"full": ["model"]}, "lr": 1e-3}, {"train": {"lora": ATTENTION}, "lr": 1e-3}
EIGHT = {"optimizer": "adamw8bit"}
BF16 = {**EIGHT, "trained_weights": "bf16"}
FUSED = {"fused_backward": True}
UNCLIPPED = {"steps": 6, "checkpoint_every": 3, "clip": None}
ROADS = {
    "8 bits": ("fp32", WHOLE | EIGHT),
    "fused": ("fp32", WHOLE | FUSED),
    "bf16": ("bf16", WHOLE | BF16),
    "all of them": ("bf16", WHOLE | BF16 | FUSED | {"gradient_checkpointing": True}),
    "int8": ("bf16", LORA | {"frozen_weights": "int8"}),
    "nf4, 8 bits, fused": ("fp32", LORA | {"frozen_weights": "nf4"} | EIGHT | FUSED),
}


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = write_meshes(tmp_path_factory.mktemp("meshes"))
    return prepare_shapes(root, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_networks(tmp_path_factory.mktemp("weights") / "small.safetensors", networks())


@pytest.fixture
def train(weights, folders, tmp_path):
    """``train("name", strategy, precision)``: a trainer of the small study with that strategy."""

    def build(name, strategy, precision="fp32", **training):
        AcceleratorState._reset_state(True)
        wanted = run_of(weights, strategies={"A": strategy}, precision=precision, training={**UNCLIPPED, **training})
        return trainer(wanted, folders, tmp_path / name)

    return build


def ended(of):
    """What was trained, to the end, and the history of it."""
    assert of.train() == "completed"
    rows = [{k: float(v) for k, v in row.items() if k != "seconds"} for row in of.history.rows]
    return {n: p.detach().clone() for n, p in of.model.named_parameters() if p.requires_grad}, rows


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- the step within the backward pass -------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [WHOLE, LORA | {"gradient_checkpointing": True}, WHOLE | EIGHT])
def test_the_fused_step_is_the_usual_step(train, strategy):
    """The same bits, and the same norms of gradients."""
    usual, fused = (ended(train(name, strategy | how)) for name, how in (("usual", {}), ("fused", FUSED)))
    assert same(usual[0], fused[0]) and usual[1] == fused[1]


def test_no_two_gradients_exist_at_a_time(train):
    ours, most = train("run", WHOLE | FUSED), []
    trained = [p for p in ours.model.parameters() if p.requires_grad]
    for parameter in trained:  # asked after the weight's own step
        parameter.register_post_accumulate_grad_hook(lambda _: most.append(sum(p.grad is not None for p in trained)))
    ended(ours)
    assert len(most) > 6 * 50 and max(most) == 0


@pytest.mark.parametrize("strategy", [WHOLE, WHOLE | FUSED])
def test_what_a_run_held_is_given_back(train, strategy):
    """To the evaluation, which follows in the same process."""
    ours = train("run", strategy, steps=1)
    ended(ours)
    held = [weakref.ref(p) for p in ours.model.parameters()]
    ours.meter.report()
    del ours
    gc.collect()
    assert not [weight for weight in held if weight() is not None]


def test_a_nan_ends_a_fused_run_as_diverged(train):
    ours = train("run", WHOLE | FUSED)
    original = ours.system.objective

    def poisoned(model, batch, name):
        found = original(model, batch, name)
        return found._replace(loss=found.loss * (math.nan if len(ours.history.rows) == 3 else 1))

    ours.system.objective = poisoned
    assert ours.train() == "diverged" and ours.record()["diagnoses"][0]["step"] == 4


# --- every road ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
def test_a_run_that_died_ends_bitwise_equal(train, monkeypatch, road):
    """Moments in 8 bits and the draws of stochastic rounding are part of a checkpoint."""
    precision, strategy = ROADS[road]
    whole = ended(train("whole", strategy, precision))
    cut = train("cut", strategy, precision)
    step = cut._step

    def dying(number, batches):
        if number == 4:
            raise KeyboardInterrupt
        return step(number, batches)

    monkeypatch.setattr(cut, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = train("cut", strategy, precision)
    assert resumed.start == 3
    again = ended(resumed)
    assert same(whole[0], again[0]) and whole[1] == again[1]


@pytest.mark.parametrize("strategy", [WHOLE | EIGHT | FUSED, WHOLE | BF16 | FUSED | {"gradient_checkpointing": True}])
def test_a_lean_run_learns_as_much(train, strategy):
    """After fifty steps the loss is within 2 % of that of fp32 (measured: 0.03 % and 0.1 %)."""
    last = {}
    for name, how, precision in (("fp32", WHOLE, "fp32"), ("lean", strategy, "bf16")):
        ours = train(name, how | {"lr": 1e-2}, precision, steps=50, checkpoint_every=None)
        ended(ours)
        losses = ours.history.column("loss")
        last[name], first = sum(losses[-10:]) / 10, sum(losses[:5]) / 5
    assert last["lean"] == pytest.approx(last["fp32"], rel=0.02) and last["lean"] < 0.95 * first


@pytest.mark.parametrize("road", ROADS)
def test_the_traced_step_is_the_real_step(road):
    """Within 1 % of what torch's profiler sees the demo's networks allocate on a CPU.

    Without oneDNN, which packs weights in bf16 for processors with AMX, and the peak is another.
    """
    precision, strategy = ROADS[road]
    axes = {"strategy": "X", "precision": precision, "accumulation": 1, "seed": 0}
    changes = {"sweep": axes, "strategies": {"X": strategy}, "training": {"clip": None}, "baseline": None}
    (wanted,) = expand(load_study(STUDY, changes), "demo")
    with torch.backends.mkldnn.flags(enabled=False):
        assert allocated_peak(trace_step_on_cpu(wanted)) == pytest.approx(peak_of_step(wanted), rel=0.01)


# --- moments in 8 bits, weights in bf16 ------------------------------------------------------------------------------


def test_adamw_in_8_bits_follows_adamw():
    """Large weights within 5 % of the way that AdamW goes (3.6 %); small ones, whose moments are in fp32, nearly exactly."""
    torch.manual_seed(0)
    start = [torch.randn(100, 90), torch.randn(50)]
    targets = [torch.randn_like(value) for value in start]
    ways = {}
    for kind in (torch.optim.AdamW, AdamW8bit):
        weights = [nn.Parameter(value.clone()) for value in start]
        optimizer = kind(weights, lr=1e-2, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            sum(F.mse_loss(w, t, reduction="sum") for w, t in zip(weights, targets, strict=True)).backward()
            optimizer.step()
        ways[kind] = [(weight.detach() - value) for weight, value in zip(weights, start, strict=True)]
    (large, small), (large8, small8) = ways.values()
    assert (large - large8).norm() < 0.05 * large.norm() and not torch.equal(large, large8)
    torch.testing.assert_close(small8, small, rtol=1e-4, atol=1e-6)


def test_a_weight_of_several_chunks_is_stepped_as_one(monkeypatch):
    def stepped():
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(77, 101))
        optimizer = AdamW8bit([weight], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01)
        for _ in range(3):
            weight.grad = torch.randn_like(weight)
            optimizer.step()
        return weight.detach()

    whole = stepped()
    monkeypatch.setattr("ablation.training.adamw8bit.CHUNK", 1024)
    assert torch.equal(whole, stepped())


def test_stochastic_rounding_is_right_on_average():
    torch.manual_seed(0)
    for value in (1.001, -0.3334, 1e-6, 0.0, 2.0):
        values = torch.full((40_000,), value)
        rounded = stochastically_rounded(values.clone())
        assert torch.equal(rounded, rounded.bfloat16().float()), "numbers of bf16"
        assert len(rounded.unique()) == (1 if value in (0.0, 2.0) else 2), "the two neighbours"
        assert rounded.mean().item() == pytest.approx(value, rel=2e-4)


def test_updates_too_small_for_bf16_are_not_lost():
    """A thousand steps of 1e-5 from 1, where the next number of bf16 is 0.004 away."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
    optimizer = AdamW8bit([weight], lr=1e-5, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    for _ in range(1000):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.dtype == torch.bfloat16
    assert weight.float().mean().item() == pytest.approx(1 - 1000 * 1e-5, abs=5e-4)


def test_what_is_held_in_what(weights):
    wanted = run_of(weights, strategies={"A": WHOLE | BF16}, precision="bf16")
    model = for_training(System(wanted.settings), wanted, {"weights": weights}, CPU)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.bfloat16}


# --- frozen weights in few bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "error", "bits"), [("int8", 0.007, 8.5), ("nf4", 0.1, 4.5)])
def test_a_quantised_layer_is_the_layer_nearly(form, error, bits):
    torch.manual_seed(0)
    layer = nn.Linear(256, 128)
    nn.init.normal_(layer.weight)
    quantised, x = QuantisedLinear(layer, form, torch.float32), torch.randn(3, 7, 256, requires_grad=True)
    assert (quantised.weight - layer.weight).norm() < error * layer.weight.norm()
    assert 8 * (quantised.codes.nbytes + quantised.scales.nbytes) == bits * layer.weight.numel()
    y = quantised(x)
    assert torch.equal(y, F.linear(x, quantised.weight, layer.bias))
    (ours,) = torch.autograd.grad(y.square().sum(), x)
    (theirs,) = torch.autograd.grad(F.linear(x, quantised.weight, layer.bias).square().sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_experts_in_few_bits_are_still_grouped():
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(16, 32) for _ in range(3))
    x, experts = torch.randn(40, 16, requires_grad=True), torch.randint(0, 3, (40,))
    quantise_frozen(layers.requires_grad_(False), "int8", "fp32", ())
    assert grouped.groupable(layers)
    groups = grouped.group(experts, 3)
    rows = torch.zeros_like(x).index_copy(0, groups.places, x)
    out = grouped.grouped_linear(rows, groups, list(layers)).index_select(0, groups.places)
    each = torch.stack([layers[e](row) for e, row in zip(experts.tolist(), x, strict=True)])
    torch.testing.assert_close(out, each)
    ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (out, each))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("form", "bound"), [("int8", 0.01), ("nf4", 0.1)])
def test_training_beside_frozen_weights_in_few_bits(train, weights, folders, tmp_path, form, bound):
    """Random weights, the worst there are: losses stay within the bound (measured: 0.4 % and 6.4 %). The adapter is PEFT's."""
    losses = {}
    for name, how in (("usual", {}), (form, {"frozen_weights": form})):
        ours = train(name, LORA | how)
        ended(ours)
        losses[name] = torch.tensor(ours.history.column("loss"))
        assert ours.finish() == "adapter"
    assert not torch.equal(losses["usual"], losses[form])
    assert ((losses[form] - losses["usual"]) / losses["usual"]).abs().max() < bound

    assert PeftModel.from_pretrained(networks(), str(tmp_path / form / "adapter")).peft_config["default"].r == 4
    files = {"weights": weights}
    out = tmp_path / "pictures"
    judged = [evaluate(ours.system, "fp32", files, tmp_path / form, folders, out, CPU, held) for held in (None, form)]
    assert judged[0]["metrics"].keys() == judged[1]["metrics"].keys() and judged[0]["metrics"] != judged[1]["metrics"]


def test_quantised_weights_count_as_what_they_stand_for(weights):
    counts = []
    for form in (None, "nf4"):
        wanted = run_of(weights, strategies={"A": LORA | {"frozen_weights": form}})
        system = System(wanted.settings)
        with torch.device("meta"):
            model = adapted(system, wanted, system.build())
        counts.append(count_parameters(model))
    assert counts[0] == counts[1]


# --- what is refused, and what stays as it was -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (WHOLE | {"trained_weights": "bf16"}, "trained_weights: bf16 needs optimizer: adamw8bit"),
        (LORA | FUSED | {"distributed": "zero2"}, "fused_backward needs distributed: ddp; zero2"),
        (LORA | EIGHT | {"distributed": "zero3", "offload": True}, "optimizer: adamw8bit needs distributed: ddp"),
        (LORA | {"frozen_weights": "nf4", "host": ["vae"]}, "two ways to hold frozen weights"),
        (WHOLE | {"optimizer": "sgd"}, "'adamw' or 'adamw8bit'"),
    ],
)
def test_strategies_that_cannot_be(changes, words):
    with pytest.raises(ValidationError, match=words):
        Strategy.model_validate(changes)


@pytest.mark.parametrize(
    ("strategy", "changes", "words"),
    [
        (WHOLE | FUSED, {}, "has no norm of all gradients, which training.clip: 1 needs; set it to null"),
        (WHOLE | FUSED, {"training": {"clip": None}, "accumulation": 2}, "accumulation 2 has several"),
        (WHOLE | FUSED, {"training": {"clip": None}, "precision": "fp16"}, "loss scaling"),
        (WHOLE | FUSED, {"training": {"clip": None}, "gpus": 2}, "fused_backward is for one GPU, not 2"),
        (WHOLE | BF16, {"precision": "fp32"}, "train in bf16, not fp32"),
        (WHOLE | BF16, {"training": {"ema": 0.9}, "precision": "bf16"}, "no average"),
        (LORA | {"frozen_weights": "int8"}, {"gpus": 2}, "frozen_weights is for one GPU"),
        (WHOLE | FUSED, {"training": {"clip": None}}, None),
        (WHOLE | BF16, {"precision": "bf16"}, None),
    ],
)
def test_what_a_strategy_cannot_go_with_is_told_by_the_plan(strategy, changes, words):
    wanted = run_of("none", strategies={"A": strategy}, **changes)
    reason = unsupported(wanted, load_card("rtx4090", ROOT / "config/hardware"))
    assert reason is None if words is None else words in reason


def test_several_objectives_are_summed_to_be_fused():
    changes = {"sweep": {"strategy": "A", "seed": 0}, "training": {"clip": None}, "baseline": None}
    card = load_card("rtx4090", ROOT / "config/hardware")
    for backward, refused in (("each", True), ("summed", False)):
        study = load_study(
            ROOT / "config/studies/kolors-3x4090.yaml", {**changes, "strategies": {"A": {**FUSED, "backward": backward}}}
        )
        reason = unsupported(expand(study, "kolors")[0].with_axes(gpus=1, accumulation=1, precision="bf16"), card)
        assert ("3 objectives" in (reason or "")) == refused


def test_libraries_that_would_load_bitsandbytes_find_none():
    """It takes seconds, and PEFT and diffusers load it wherever it is installed."""
    code = "import ablation, importlib.util; print(importlib.util.find_spec('bitsandbytes'))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    assert told.stdout == "None\n"


def test_fields_that_are_not_used_leave_runs_as_they_were():
    """What a run's training depends on has no word of them, so that no finished run is trained again."""
    usual = run_of("none", strategies={"A": {**WHOLE, "optimizer": "adamw", "fused_backward": False}})
    assert set(usual.training_view["strategy"]) == {
        "train", "lr", "gradient_checkpointing", "backward", "distributed", "offload",
    }  # fmt: skip
    lean = run_of("none", strategies={"A": WHOLE | BF16 | FUSED})
    assert json.loads(json.dumps(lean.training_view["strategy"]))["trained_weights"] == "bf16"
    assert type(lean).from_view(lean.training_view).strategy == lean.strategy


# --- the released size -----------------------------------------------------------------------------------------------


def test_the_whole_of_hunyuan3d_is_fine_tuned_on_one_card_of_24_gib():
    """Three billion weights: 5.7 GiB in bf16, as much again for gradients and for moments; clipped, as released."""
    study, card = load_study(STUDY, {"scale": "full"}), load_card("rtx4090", ROOT / "config/hardware")
    wanted = [r for r in expand(study, "full") if r.axes["strategy"] == "D" and r.axes["batch"] == 1]
    prediction = Predictor(wanted, card)(wanted[0])
    assert unsupported(wanted[0], card) is None and wanted[0].settings.training.clip == 1.0
    assert prediction.verdict == "fits" and prediction.total < 22
