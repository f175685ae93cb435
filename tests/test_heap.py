"""A process that computes on a CPU asks the kernel once for the memory of its steps."""

import subprocess
import sys

from conftest import ROOT

PROGRAM = """
import resource, sys
import torch
from ablation.device import choose_device

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        blocks = [torch.ones(12 * 2**20) for _ in range(2)]  # of 48 MiB each: more than glibc ever keeps of itself
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
if sys.argv[1] == "chosen":
    choose_device("cpu", "demo")
faults(2)
print(faults(20))
"""


def faults(how: str) -> int:
    command, places = [sys.executable, "-c", PROGRAM, how], {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, env=places, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_that_a_step_frees_is_there_for_the_next():
    assert 10 * faults("chosen") < faults("not")
