"""Every strategy and launch of Kolors takes the same steps: objectives that train different heads, on one process or three."""

import subprocess
from pathlib import Path

import launch
import layouts
import pytest
import small_kolors as small
import torch
from safetensors.torch import load_file

from ablation.parts import Part
from ablation.study import study_model
from ablation.sweep import Run, expand
from ablation.systems.kolors.data.layouts import write_layouts
from ablation.systems.kolors.network import Kolors
from ablation.systems.kolors.preparation import prepare

TEXT = small.SIZES.text_encoder.model_copy(update={"vocabulary": 128})  # as many words as the tokenizer has
# A level without attention and one with it: ZeRO-3 gathers the weights of each module, again and again.
UNET = small.SIZES.unet.model_copy(update={"channels": (8, 16), "transformers": (0, 1), "heads": (1, 2)})
SIZES = small.SIZES.model_copy(update={"text_encoder": TEXT, "unet": UNET})
TRAINED = {"train": {"full": ["adapter", "heads"]}, "lr": 1e-3}
ZERO, ZERO3 = {"distributed": "zero2"}, {"distributed": "zero3"}
LAUNCHES = {  # six samples a step each, two a pass: the contrast of captions and pictures is within a pass
    "summed": ({"backward": "summed"}, {"accumulation": 3}),
    "each": ({}, {"accumulation": 3}),
    "recomputed": ({"gradient_checkpointing": True}, {"accumulation": 3}),
    "summed on three": ({"backward": "summed"}, {"gpus": 3}),
    "copies on three": ({}, {"gpus": 3}),
    "recomputed on three": ({"gradient_checkpointing": True}, {"gpus": 3}),
    "parts": (ZERO, {"gpus": 3}),
    "parts, offloaded": ({**ZERO, "offload": True}, {"gpus": 3}),
    "weights too": (ZERO3, {"gpus": 3}),
    "weights too, summed": ({**ZERO3, "backward": "summed", "gradient_checkpointing": True}, {"gpus": 3}),
    "weights too, offloaded": ({**ZERO3, "offload": True}, {"gpus": 3}),
    "one part, offloaded": ({**ZERO, "offload": True}, {"accumulation": 3}),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Small networks in the released layout, and eight pictures with layouts and latents."""
    root, model = tmp_path_factory.mktemp("kolors"), Kolors(SIZES, small.SAMPLE.text_length)
    model.unet.save_pretrained(root / "unet")
    model.text_encoder.save_pretrained(root / "text_encoder")
    layouts.save_tokenizer(root / "tokenizer")
    layouts.save_vae(root / "vae")
    for name in ("layouts", "latents"):
        (root / name).mkdir()
    write_layouts(layouts.some_layouts(root / "images", 8), root / "images", root / "layouts")
    prepare(Part("latents", "layouts", {"vae": str(root / "vae"), "resolution": 128}), [root / "layouts"], root / "latents")
    return root


def run_of(root: Path, how: dict, axes: dict) -> Run:
    """Three steps of the small Kolors."""
    content = {
        "system": "kolors",
        "data": {**small.SAMPLE.model_dump(mode="json"), "test": 0.25},
        "model": {"weights": str(root), "architecture": SIZES.model_dump(mode="json")},
        "training": {"steps": 3, "checkpoint_every": 2},
        "compute": {"threads": 1, "workers": 0},
        "strategies": {"A": {**TRAINED, **how}},
        "sweep": {"batch": 2, "precision": "fp32", **axes},
    }
    return expand(study_model("kolors").model_validate(content), "small")[0]


def job(run: Run, folder: Path, root: Path) -> tuple:
    """What a launch takes."""
    return run, folder, {part: root / part for part in ("unet", "text_encoder")}, [root / "layouts", root / "latents"]


def train(run: Run, folder: Path, root: Path) -> subprocess.CompletedProcess:
    """The run in its folder; ZeRO-3 with limits that matter for small networks."""
    return launch.train(*job(run, folder, root), program=launch.SMALL_PARTS)


class Trained(dict):
    """Every launch's folder, trained when it is first asked for."""

    def __init__(self, root: Path):
        super().__init__()
        self.root = root

    def __missing__(self, name: str) -> Path:
        folder = self.root / name.replace(", ", "-").replace(" ", "-")
        done = train(run_of(self.root, *LAUNCHES[name]), folder, self.root)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        return self.setdefault(name, folder)


@pytest.fixture(scope="module")
def trained(root) -> Trained:
    """What has been trained so far."""
    return Trained(root)


@pytest.mark.parametrize("name", LAUNCHES)
def test_every_launch_takes_the_same_steps(trained, name):
    """Up to the order of sums in fp32. What only one objective trains, and what the last does not reach, is not lost.

    A bias of attention's keys changes nothing: its gradient is rounding alone, which AdamW brings to the size of a step.
    """
    for column in ("loss", "captioning", "retrieval", "generation", "grad_norm"):
        assert launch.history(trained[name], column) == pytest.approx(launch.history(trained["each"], column), rel=1e-4), column
    weights, wanted = (load_file(trained[one] / "model.safetensors") for one in (name, "each"))
    assert weights.keys() == wanted.keys()
    for key, value in wanted.items():
        if key.endswith("in_proj_bias"):
            for each in (weights[key], value):
                each.chunk(3)[1].zero_()
        torch.testing.assert_close(weights[key], value, atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")


def test_all_that_is_trained_learns(trained):
    """And nothing else is saved."""
    model = Kolors(SIZES, small.SAMPLE.text_length)
    model.start()
    start = {name: p for name, p in model.named_parameters() if name.startswith(("adapter", "heads"))}
    after = load_file(trained["parts, offloaded"] / "model.safetensors")
    assert after.keys() == start.keys()
    assert not [name for name, value in after.items() if torch.equal(value, start[name])]


@pytest.mark.parametrize("name", ["parts, offloaded", "weights too", "weights too, offloaded"])
def test_zero_resumes_bit_for_bit(trained, root, name):
    """Killed when the state of step 2 is there, which each process keeps its part of."""
    folder, whole, run = root / f"killed-{name[-4:]}-{len(name)}", trained[name], run_of(root, *LAUNCHES[name])
    launch.kill_after("checkpoint at step 2", *job(run, folder, root), program=launch.SMALL_PARTS)
    done = train(run, folder, root)
    assert done.returncode == 0 and "resuming after step 2" in done.stderr
    assert launch.history(folder, "loss") == launch.history(whole, "loss")
    before, after = (load_file(each / "model.safetensors") for each in (whole, folder))
    assert all(torch.equal(value, before[name]) for name, value in after.items())
