"""What a training loads before its first step, and what it leaves to those who use it."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import ROOT

from ablation.systems import SYSTEMS

PROGRAM = """
import gc, importlib, os, sys
from types import SimpleNamespace as N
import torch
from ablation.systems import SYSTEMS
from ablation.training.loading import load_libraries

def touched(*_):
    raise AssertionError("CUDA is looked for: no fork of this process could use it")

# As in a build for CUDA, as far as libraries look.
torch._C._cuda_getCurrentRawStream = getattr(torch._C, "_cuda_getCurrentRawStream", None)
torch._C._cuda_getDeviceCount = torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = touched
load_libraries(N(settings=N(system="rdt"), strategy=N(train=N(lora=None))))
assert gc.isenabled() and gc.get_freeze_count() > 100_000
unwanted = {"peft", "diffusers", "transformers"} & set(sys.modules)
for system in SYSTEMS:
    importlib.import_module(f"ablation.systems.{system}.system")
assert len(os.listdir("/proc/self/task")) == 1, "a thread is started: a fork of this process would not have it"
print(*unwanted, *({"matplotlib", "trimesh", "pandas", "mujoco"} & set(sys.modules)))
"""


def test_what_prepares_and_what_judges_is_not_loaded_nor_any_thread_or_gpu_begun():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("lora", [None, ["everything"]])
@pytest.mark.parametrize("system", SYSTEMS)
def test_what_libraries_load_only_where_it_is_installed_is_not_loaded(system, lora):
    """And is there for those who ask for it later."""
    program = f"""
import sys
from types import SimpleNamespace as N
from ablation.training.loading import load_libraries
load_libraries(N(settings=N(system="{system}"), strategy=N(train=N(lora={lora}))))
loaded = {{name for name, module in sys.modules.items() if module}}
print("peft" in loaded, {{"scipy", "bitsandbytes", "pycolmap"}} & loaded)
from scipy.spatial import Delaunay
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{lora is not None} set()\n"


def test_both_ways_build_the_same_network(monkeypatch):
    """The benchmark's plain script and the trainer: the same names, bits, and what is trained."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    startup = importlib.import_module("startup")
    try:
        for study in startup.STRATEGIES:
            AcceleratorState._reset_state(True)
            one, other = (dict(build(study).named_parameters()) for build in (startup.ours, startup.plain))
            assert one.keys() == other.keys()
            same = [name for name in one if "lora_A" not in name]  # which are drawn, after what the build has drawn
            assert all(torch.equal(one[name], other[name]) for name in same), study
            assert all(one[name].shape == other[name].shape for name in one)
            assert all(one[name].requires_grad == other[name].requires_grad for name in one)
    finally:
        AcceleratorState._reset_state(True)
