"""What the tests share: one thread (two compete on small machines), small models, small scenes."""

import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from scenes import write_scene

from ablation.study import Study, load_study
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.settings import Architecture, Dpt, Transformer

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "config/studies/vggt-eth3d.yaml"
PARITY = Path(__file__).parent / "data/parity"

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a test never asserts a time
settings.load_profile("untimed")


@pytest.fixture
def tiny() -> Architecture:
    """The smallest VGGT that has every part."""
    return Architecture(
        image_size=28, embed_dim=32, depth=4, heads=2, layer_scale=0.5, vit=Transformer(depth=1, heads=2, mlp_ratio=2),
        camera=Transformer(depth=1, heads=2, mlp_ratio=1), dpt=Dpt(features=16, channels=(8, 8, 8, 8), layers=(0, 1, 2, 3)),
    )  # fmt: skip


@pytest.fixture
def vggt(tiny) -> VGGT:
    """A tiny VGGT with random weights."""
    torch.manual_seed(0)
    return VGGT(tiny)


@pytest.fixture(scope="session")
def scene_root(tmp_path_factory) -> Path:
    """A folder with the ETH3D-style scenes ``hall`` and ``yard``."""
    root = tmp_path_factory.mktemp("eth3d")
    write_scene(root, "hall", seed=1)
    write_scene(root, "yard", seed=2)
    return root


@pytest.fixture
def demo_study() -> Study:
    """The committed study at demo scale."""
    return load_study(STUDY)
