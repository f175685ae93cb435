"""What the tests share: one thread (two compete on small machines), small models, small scenes."""

import gc
import os
import zlib  # noqa: F401  (before pycolmap)
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile_files import little_memory
from hypothesis import settings
from scenes import write_scene
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ablation.gpus import FOLDER
from ablation.study import Study, load_study
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.settings import Architecture, Dpt, Transformer
from ablation.vram.live import LiveTensors

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "config/studies/vggt-eth3d.yaml"
PARITY = Path(__file__).parent / "data/parity"

# The files that take longest, longest first: run in several processes, none of them is left to be waited for at the end.
LONGEST = [
    "test_workflow", "test_kolors_processes", "test_verify_example", "test_probe_workflow", "test_workflow_plan",
    "test_processes", "test_module", "test_scaffold", "test_predict", "test_prefix", "test_gpu_records", "test_lean_training",
    "test_packing_workflow", "test_docs", "test_runs_per_job", "test_sharding", "test_memory_goals", "test_faults",
    "test_training", "test_recompute", "test_recommended", "test_status_training", "test_hunyuan3d_system",
]  # fmt: skip

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a test never asserts a time
settings.register_profile("thousands", deadline=None)  # how many: hostile.py
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "untimed"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first (with xdist's --no-loadscope-reorder), each file in its own order."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection_finish() -> None:
    """What all files have loaded is not looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def leases(tmp_path_factory) -> Iterator[None]:
    """Pretended GPUs are leased among the tests of one process, not among all that run on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(tmp_path_factory.mktemp("leases")))
        yield


@pytest.fixture(autouse=True)
def no_count_is_left() -> Iterator[None]:
    """A trainer that a test leaves in its middle must not count the tensors of the tests that follow."""
    yield
    left = [mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, LiveTensors)]
    for mode in left:
        mode.__exit__(None, None, None)
    assert not left, "end the trainer's count: trainer.meter.report()"


def smallest() -> Architecture:
    """The smallest VGGT that has every part."""
    return Architecture(
        image_size=28, embed_dim=32, depth=4, heads=2, layer_scale=0.5, vit=Transformer(depth=1, heads=2, mlp_ratio=2),
        camera=Transformer(depth=1, heads=2, mlp_ratio=1), dpt=Dpt(features=16, channels=(8, 8, 8, 8), layers=(0, 1, 2, 3)),
    )  # fmt: skip


@pytest.fixture
def tiny() -> Architecture:
    """The same, for the tests that ask for it."""
    return smallest()


@pytest.fixture
def vggt(tiny) -> VGGT:
    """A tiny VGGT with random weights."""
    torch.manual_seed(0)
    return VGGT(tiny)


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """The GPU as the scripts choose it, without a cap and without the counts of other tests, and left so."""

    def fresh():
        gc.collect()
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
        torch.cuda.reset_accumulated_memory_stats()

    fresh()
    yield torch.device("cuda")
    fresh()


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


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Iterator[Path]:
    """A folder for what strangers send to the tests of a file, which together may take little memory."""
    with little_memory():
        yield tmp_path_factory.mktemp("root")
