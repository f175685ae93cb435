"""What a training loads before its first step, and what it leaves to those who use it."""

import os
import subprocess
import sys

from conftest import ROOT

PROGRAM = """
import gc, importlib, sys
from types import SimpleNamespace as N
from ablation.systems import SYSTEMS
from ablation.training.loading import load_libraries

load_libraries(N(settings=N(system="rdt"), strategy=N(train=N(lora=None))))
assert gc.isenabled() and gc.get_freeze_count() > 100_000
unwanted = {"peft", "diffusers", "transformers"} & set(sys.modules)
for system in SYSTEMS:
    importlib.import_module(f"ablation.systems.{system}.system")
print(*unwanted, *({"matplotlib", "trimesh", "pandas", "mujoco"} & set(sys.modules)))
"""


def test_what_prepares_and_what_judges_is_not_loaded():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
