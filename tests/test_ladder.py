"""The memory ladder: which techniques a study's system and cards allow, and what each rung's step needs."""

import pytest
from conftest import ROOT

from ablation.hardware import load_card
from ablation.ladder import ladder, rungs
from ablation.study import load_study
from ablation.sweep import expand
from ablation.vram.predict import Predictor

STUDIES = ROOT / "config/studies"


def rungs_of(name, scale, **overrides):
    study = load_study(STUDIES / f"{name}.yaml", {"scale": scale, **overrides})
    return list(rungs(study, expand(study, name)))


@pytest.mark.parametrize(
    ("name", "techniques"),
    [
        ("dit-images", ["+ bf16", "+ gradient checkpointing"]),
        ("vggt-eth3d", ["+ bf16", "+ LoRA of rank 16 (as in A)", "+ gradient checkpointing"]),
        ("hunyuan3d-4090", ["+ bf16", "+ LoRA of rank 16 (as in B)", "+ gradient checkpointing"]),
        (
            "rdt-batch",
            ["+ bf16", "+ LoRA of rank 16 (as in lora)", "+ gradient checkpointing", "+ 8 GPUs, DDP", "+ ZeRO-2", "+ ZeRO-3",
             "+ optimizer in host memory"],
        ),
        (
            "kolors-3x4090",
            ["+ bf16", "+ a part of the network trained (as in A)", "+ a backward pass for each objective",
             "+ gradient checkpointing", "+ 3 GPUs, DDP", "+ ZeRO-2", "+ ZeRO-3", "+ optimizer in host memory"],
        ),
    ],
)  # fmt: skip
def test_the_rungs_of_each_study(name, techniques):
    found = rungs_of(name, "full")
    assert [rung.technique for rung in found] == ["full fine-tuning in fp32", *techniques]


def test_each_rung_keeps_what_was_added_before():
    first, *_, last = (rung.run for rung in rungs_of("kolors-3x4090", "full"))
    assert first.strategy.train.full == ["*"] and first.strategy.backward == "summed" and first.axes["gpus"] == 1
    assert not first.strategy.gradient_checkpointing and first.axes["precision"] == "fp32"
    assert last.strategy.backward == "each" and last.strategy.gradient_checkpointing and last.strategy.offload
    assert last.strategy.distributed == "zero3" and last.axes["gpus"] == 3 and last.axes["precision"] == "bf16"
    assert last.axes["batch"] == first.axes["batch"] == 1


def test_full_fine_tuning_is_what_the_study_calls_so():
    """Hunyuan3D's strategy A trains the transformer, not the frozen encoders."""
    assert rungs_of("hunyuan3d-4090", "full")[0].run.strategy.train.full == ["model"]


def test_a_rung_needs_what_the_plan_says_of_the_same_run(tmp_path):
    study = load_study(STUDIES / "dit-images.yaml", {"scale": "demo", "training": {"ema": 0.99}})
    card = load_card("rtx4090", ROOT / "config/hardware")
    rows = ladder(study, "dit-images", card, tmp_path)
    runs = {run.id: run for run in expand(study, "dit-images")}
    assert [row["technique"] for row in rows] == ["full fine-tuning in fp32", "+ bf16", "+ gradient checkpointing"]
    assert all(row["predicted_reserved_gib"] > 0 and row["memory_verdict"] == "fits" for row in rows)
    same = [row for row in rows if row["runs"]]
    assert [row["technique"] for row in same] == ["full fine-tuning in fp32", "+ bf16"]
    for row in same:
        for run in row["runs"].split():
            assert Predictor([runs[run]], card, tmp_path)(runs[run]).reserved == pytest.approx(
                row["predicted_reserved_gib"], abs=5e-5
            )
