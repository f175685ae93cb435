"""Our networks give the reference's numbers: 1e-4 absolute in fp32, the tolerance of the stored cases."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import PARITY, ROOT
from parity import differences
from peft import LoraConfig, get_peft_model

from ablation.study import load_study
from ablation.systems.vggt.model.vggt import IGNORED, VGGT
from ablation.systems.vggt.settings import Architecture
from ablation.training.strategy import apply_strategy, count_parameters
from ablation.training.targets import adaptable_modules

TOLERANCE = 1e-4


@pytest.mark.parametrize(("system", "case"), [("vggt", "vggt-tiny"), ("vggt-loss", "vggt-loss")])
def test_stored_outputs(system, case):
    found = differences(system, PARITY / case)
    assert {name: value for name, value in found.items() if value > TOLERANCE} == {}


def test_command_line_fails_beyond_the_tolerance():
    command = [sys.executable, str(ROOT / "tests/parity.py"), "vggt-loss", str(PARITY / "vggt-loss")]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.returncode == 0 and "norm_depths" in good.stdout
    bad = subprocess.run([*command, "--tolerance", "1e-12"], capture_output=True, text=True, check=False)
    assert bad.returncode != 0 and "EXCEEDS" in bad.stdout


def test_released_names_and_shapes():
    released = {name: tuple(shape) for name, shape, _ in json.loads((PARITY / "vggt.keys.json").read_text())}
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in VGGT(Architecture()).state_dict().items()}
    assert ours == {name: shape for name, shape in released.items() if not name.startswith(IGNORED)}


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
