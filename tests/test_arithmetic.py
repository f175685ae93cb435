"""A hash tells processors apart that round otherwise, whatever their names."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

OTHER_KERNELS = ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE"]
"""What makes PyTorch, oneDNN and NumPy take other kernels than this processor's best."""


def arithmetic(**kernels: str) -> str:
    """In a process of its own, with these kernels or this machine's own."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_KERNELS}
    script = "import torch; from ablation.arithmetic import arithmetic; torch.set_num_threads(1); print(arithmetic())"
    command = [sys.executable, "-c", script]
    environment |= {"PYTHONPATH": str(ROOT / "scripts"), **kernels}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_it_is_the_same_each_time():
    assert arithmetic() == arithmetic()


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="this processor has no kernels but the plain ones"
)
@pytest.mark.parametrize("kernels", [{"ATEN_CPU_CAPABILITY": "default"}, {"OPENBLAS_CORETYPE": "Nehalem"}])
def test_other_kernels_are_told(kernels):
    assert arithmetic(**kernels) != arithmetic()
