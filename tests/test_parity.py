"""Our networks and their training give the references' numbers, each within the tolerance of its kind of case (parity.py)."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import PARITY, ROOT
from parity import SYSTEMS, differences
from peft import LoraConfig, get_peft_model

from ablation.study import load_study
from ablation.systems.rdt.model.runner import RDTRunner
from ablation.systems.rdt.settings import Architecture as RdtArchitecture
from ablation.systems.vggt.model.vggt import IGNORED, VGGT
from ablation.systems.vggt.settings import Architecture
from ablation.training.strategy import apply_strategy, count_parameters
from ablation.training.targets import adaptable_modules

CASES = {"vggt": "vggt-tiny", "rdt": "rdt-tiny", "hunyuan3d_dit": "hunyuan3d_dit-tiny"}
"""Those of another name than their system's."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_stored_outputs(system):
    found = differences(system, PARITY / CASES.get(system, system))
    assert {name: value for name, value in found.items() if value > SYSTEMS[system].tolerance} == {}


def test_command_line_fails_beyond_the_tolerance():
    command = [sys.executable, str(ROOT / "tests/parity.py"), "vggt-loss", str(PARITY / "vggt-loss")]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.returncode == 0 and "norm_depths" in good.stdout
    bad = subprocess.run([*command, "--tolerance", "1e-12"], capture_output=True, text=True, check=False)
    assert bad.returncode != 0 and "EXCEEDS" in bad.stdout


def released(system):
    return {name: tuple(shape) for name, shape, _ in json.loads((PARITY / f"{system}.keys.json").read_text())}


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_released_names_and_shapes():
    with torch.device("meta"):
        ours = shapes_of(VGGT(Architecture()))
    assert ours == {name: shape for name, shape in released("vggt").items() if not name.startswith(IGNORED)}


@pytest.fixture
def rdt_1b():
    with torch.device("meta"):
        return RDTRunner(RdtArchitecture())


def test_released_names_and_shapes_of_rdt(rdt_1b):
    assert shapes_of(rdt_1b) == released("rdt")
    assert count_parameters(rdt_1b)["total"] == 1_228_319_872


ATTENTION = ["qkv", "proj", "q", "kv"]


@pytest.mark.parametrize(
    ("targets", "rank", "expected"),
    [
        (ATTENTION, 16, 11_927_552),
        ([*ATTENTION, "fc1", "fc2"], 16, 15_697_920),
        (None, 4, 4_087_808),
        (None, 8, 8_175_616),
        (None, 16, 16_351_232),
        (None, 32, 32_702_464),
        (None, 64, 65_404_928),
    ],
)
def test_adapter_parameters_of_rdt(rdt_1b, targets, rank, expected):
    with torch.device("meta"):
        model = get_peft_model(rdt_1b, LoraConfig(r=rank, target_modules=targets or adaptable_modules(rdt_1b, ["*"])))
    assert count_parameters(model)["trainable"] == expected


@pytest.mark.parametrize("rank", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("strategy", ["A", "B", "C"])
def test_trainable_parameters_of_the_strategies(strategy, rank):
    study = load_study(ROOT / "config/studies/vggt-eth3d.yaml", {"scale": "full"})
    expected = json.loads((PARITY / "vggt.lora_counts.json").read_text())[strategy][str(rank)]
    with torch.device("meta"):
        model = apply_strategy(VGGT(Architecture()), study.strategies[strategy], rank, study.lora)
    assert count_parameters(model)["trainable"] == expected


def test_counts_are_peft_s_own_arithmetic(vggt):
    names = adaptable_modules(vggt, ["depth_head.projects", "camera_head"])
    model = get_peft_model(vggt, LoraConfig(r=3, target_modules=names))
    by_hand = 0
    for name in names:
        weight = vggt.get_submodule(name).weight
        out, inside, *kernel = weight.shape
        by_hand += 3 * (inside * torch.Size(kernel).numel() + out)
    assert count_parameters(model)["trainable"] == by_hand
