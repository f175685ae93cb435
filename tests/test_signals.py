"""The signals that ask a trainer to leave reach it, whatever libraries it has loaded."""

import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAM = """
import os, signal, sys
sys.path.insert(0, "scripts")
from ablation import leave
leave.listen()
import ablation.systems.vggt.data.colmap
os.kill(os.getpid(), signal.{name})
print(leave.asked())
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_pycolmap_takes_no_signal(name):
    """Its logging library aborts the process on SIGTERM."""
    command = [sys.executable, "-c", PROGRAM.format(name=name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == f"{name}\n", done.stderr[-2000:]
