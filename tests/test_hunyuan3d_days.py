"""The four ways to lose days with Hunyuan3D-2.1, each provoked and its diagnosis read: memory, weights, tokens, empty mesh."""

import argparse
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT
from safetensors.torch import save_file
from shapes import CPU, networks, prepare_shapes, run_of, save_networks, trainer, write_meshes

from ablation.errors import UserError
from ablation.evaluation import evaluate
from ablation.hardware import load_card
from ablation.preflight import plan
from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems.hunyuan3d import preparation
from ablation.systems.hunyuan3d.system import System
from ablation.training.model import pretrained
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter

STUDY = ROOT / "config/studies/hunyuan3d-4090.yaml"
CARDS = ROOT / "config/hardware"


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    return write_meshes(tmp_path_factory.mktemp("meshes"))


@pytest.fixture(scope="module")
def folders(meshes, tmp_path_factory):
    return prepare_shapes(meshes, tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def weights(tmp_path):
    return save_networks(tmp_path / "small.safetensors", networks())


def planned(weights, strategy, scale):
    """The plan of one run of the study with the file ``weights``, be it there or not."""
    axes = {"strategy": strategy, "rank": 16, "batch": 1, "accumulation": 4, "precision": "bf16", "seed": 0}
    changes = {"scale": scale, "model": {"weights": str(weights)}, "sweep": axes, "exclude": []}
    return plan(load_study(STUDY, changes), "days", load_card("rtx4090", CARDS))


# --- 1: out of memory ------------------------------------------------------------------------------------------------


def test_full_fine_tuning_is_known_not_to_fit_before_it_starts(tmp_path):
    """3.1 billion parameters in fp32, their gradients and AdamW's state alone are 45 GiB."""
    named = {f"{part}.x": torch.zeros(1) for part in ("model", "vae", "conditioner")}
    save_file(named, tmp_path / "named.safetensors")
    (row,) = planned(tmp_path / "named.safetensors", "A", "full").runs
    assert row["verdict"] == "oom", row["reason"]
    assert row["trainable_params"] == 3_050_758_720
    assert row["predicted_gib"] > 60 and "of 23.6" in row["reason"]
    assert row["optimizer_gib"] == pytest.approx(2 * 3_050_758_720 * 4 / 2**30, rel=0.01)


def test_a_run_that_fills_its_card_is_a_result_that_says_where(weights, meshes, folders, tmp_path, monkeypatch):
    """Adapters fit a budget that full fine-tuning, in the same networks, does not; the record names phase and step."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "scripts")])
    import train_run

    args = argparse.Namespace(weights=[("weights", weights)], data=folders, folder=tmp_path / "run", prefixes=None, hashes=None)
    args.folder.mkdir()
    outcomes = {}
    for strategy in ("A", "C"):
        run = run_of(weights, meshes, strategy=strategy, training={"steps": 3})
        found = train_run.attempt(run, args, CPU, CpuMeter(Budget("small", 0.9 * peak(run, folders, tmp_path), True)))
        outcomes[strategy] = found
        AcceleratorState._reset_state(True)
    assert {strategy: found["outcome"] for strategy, found in outcomes.items()} == {"A": "oom", "C": "oom"}
    oom = outcomes["A"]["oom"]
    assert oom["phase"] in ("forward", "backward", "optimizer") and oom["step"] == CpuMeter.COUNTED
    assert oom["requested_gib"] > 0 and oom["allocated_gib"] <= oom["budget_gib"]


def peak(run, folders, out):
    """What a run takes that has plenty, in GiB."""
    ours = trainer(run, folders, out / f"free-{run.id}")
    ours.train()
    AcceleratorState._reset_state(True)
    return ours.record()["memory"]["peak_allocated_gib"]


# --- 2: the loss is stuck --------------------------------------------------------------------------------------------


def test_weights_that_are_not_there_stop_the_plan(tmp_path):
    found = planned(tmp_path / "model.fp16.ckpt", "B", "demo")
    (row,), missing = found.runs, found.missing
    assert row["verdict"] == "invalid"
    assert "model.fp16.ckpt is not there; without pretrained weights" in row["reason"]
    assert "loss stays near 1.95" in row["reason"] and any("hf download tencent/Hunyuan3D-2.1" in line for line in missing)


def test_a_file_without_the_transformer_stops_the_plan_as_well(tmp_path):
    """As when the autoencoder's file is taken for that of all three."""
    save_file({"vae.x": torch.zeros(1)}, tmp_path / "vae.safetensors")
    torch.save({"vae": {}, "conditioner": {}}, tmp_path / "vae.ckpt")
    (tmp_path / "broken.safetensors").write_bytes(b"0123456789")
    for name, words in (
        ("vae.safetensors", "holds no model, conditioner"),
        ("vae.ckpt", "holds no model"),
        ("broken.safetensors", "cannot be read as weights"),
    ):
        run = run_of(tmp_path / name, tmp_path)
        (line,) = [line for line in System(run.settings).missing() if line.startswith("weights")]
        assert words in line and "trains from scratch" in line.splitlines()[0]


def test_a_loss_that_does_not_fall_is_reported_while_it_trains(meshes, folders, tmp_path):
    """Fresh weights and the fine-tuning rate: 2.0 is the loss of predicting nothing, and it stays there."""
    network = networks()
    network.vae.scale = 1.0
    torch.nn.init.zeros_(network.model.final_layer.linear.weight)
    fresh = save_networks(tmp_path / "fresh.safetensors", network)
    slow = {"B": {"train": {"lora": ["model.blocks.*.attn1"]}, "lr": 1e-5}}
    guards = {"stuck_after": 20, "stuck_drop": 0.05}
    run = run_of(fresh, meshes, strategy="B", batch=8, training={"steps": 24, "guards": guards}, strategies=slow)
    ours = trainer(run, folders, tmp_path / "run")
    assert ours.train() == "completed"
    (diagnosis,) = ours.diagnoses
    assert diagnosis.name == "loss stuck" and diagnosis.step == 20
    assert "pretrained weights" in diagnosis.remedy
    assert ours.record()["diagnoses"][0]["name"] == "loss stuck"


@pytest.fixture(scope="module")
def seen_shape(tmp_path_factory):
    """The demo's run of full fine-tuning, on a shape that its base model was pretrained on, and the prepared shape."""
    made = {"views": 4, "points": 1024, "distances": 64, "size": 64}
    data = {"root": str(ROOT / "resources/meshes"), "shapes": ["chicken"], "from_meshes": made}
    model = {"weights": str(ROOT / "resources/hunyuan3d-demo.safetensors")}
    (run,) = expand(load_study(STUDY, {"data": data, "model": model, "sweep": {"strategy": "A", "seed": 0}}), "seen")
    (part,) = run.settings.parts()
    out = tmp_path_factory.mktemp("seen")
    preparation.prepare(part, [], out)
    return run, [out]


def test_pretrained_weights_are_what_a_healthy_loss_comes_from(seen_shape, tmp_path):
    """The same network, data and draws: about 2 with fresh weights, well below 1 with the pretrained ones."""
    run, folders = seen_shape
    system, losses = System(run.settings), {}
    fresh = system.build()
    trained = pretrained(system, {"weights": Path(run.settings.model.weights)})
    fresh.vae, fresh.conditioner = trained.vae, trained.conditioner
    for name, network in (("fresh", fresh), ("pretrained", trained)):
        losses[name] = system.preview(network.eval(), folders, tmp_path, CPU)["validation_loss"]
    assert losses["fresh"] > 1.8 and losses["pretrained"] < 0.9


# --- 3: image size and number of tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "tokens", "words"),
    [
        (384, 1370, "makes 730 condition tokens (27 x 27 patches of 14 pixels and a class token)"),
        (518, 730, "makes 1370 condition tokens"),
        (518, 1371, "the published formula, (image_size // patch)^2 + 2, is wrong: 37^2 + 1"),
    ],
)
def test_tokens_that_do_not_match_the_image_stop_the_study(size, tokens, words):
    changes = {"scale": "full", "model": {"conditioner": {"image_size": size}, "architecture": {"condition_tokens": tokens}}}
    with pytest.raises(UserError) as caught:
        load_study(STUDY, changes)
    assert words in str(caught.value) and "model: image_size" in str(caught.value)


@pytest.mark.parametrize(("size", "tokens"), [(518, 1370), (384, 730)])
def test_tokens_that_match(size, tokens):
    changes = {"scale": "full", "model": {"conditioner": {"image_size": size}, "architecture": {"condition_tokens": tokens}}}
    assert load_study(STUDY, changes).model.conditioner.image_size == size


# --- 4: an empty mesh, and NaN ---------------------------------------------------------------------------------------


def evaluated(network, meshes, folders, tmp_path):
    path = save_networks(tmp_path / "odd.safetensors", network)
    run = run_of(path, meshes)
    return evaluate(System(run.settings), "fp32", {"weights": path}, None, folders, tmp_path / "pictures", CPU)


def test_an_empty_mesh_is_a_result_with_the_range_of_its_logits(meshes, folders, tmp_path):
    network = networks()
    head = network.vae.geo_decoder.output_proj
    torch.nn.init.normal_(head.weight, std=1e-3)
    torch.nn.init.constant_(head.bias, -0.99)
    found = evaluated(network, meshes, folders, tmp_path)
    item = found["items"][0]
    assert found["metrics"]["empty"] == 1 and found["metrics"]["volume_iou"] == 0 and "chamfer" not in found["metrics"]
    assert -1.1 < item["logit_min"] <= item["logit_max"] < -0.9
    assert f"range from {item['logit_min']:.4g} to {item['logit_max']:.4g}, all on one side" in item["diagnosis"]
    assert "those of the release from about -1.03 to 1.03" in item["diagnosis"]
    assert "2 of 2" in found["notes"]["empty meshes"] and "logits range" in found["notes"]["empty meshes"]


def test_nan_in_the_field_is_told_from_an_empty_mesh(meshes, folders, tmp_path):
    network = networks()
    with torch.no_grad():
        network.model.final_layer.linear.bias[0] = torch.nan
    item = evaluated(network, meshes, folders, tmp_path)["items"][0]
    assert "not finite" in item["diagnosis"] and "NaN" in item["diagnosis"] and "logit_min" not in item


def test_nan_in_training_ends_the_run(meshes, folders, tmp_path):
    network = networks()
    with torch.no_grad():
        network.vae.pre_kl.bias[0] = torch.nan
    path = save_networks(tmp_path / "nan.safetensors", network)
    ours = trainer(run_of(path, meshes, strategy="B"), folders, tmp_path / "run")
    assert ours.train() == "diverged"
    assert ours.record()["diagnoses"][0]["name"] == "non-finite loss" and ours.diagnoses[0].step == 1
