"""Loading the libraries of a training: most of the time before the first step of a short one."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from ablation.sweep import Run

OPTIMIZER = "torch._dynamo"  # which torch loads with the first optimizer, whether anything is compiled or not

# Loaded by PEFT and diffusers, and by diffusers alone, wherever they are installed: half a second each, unused.
BY_BOTH, BY_DIFFUSERS = "scipy", "peft"


def load_libraries(run: Run) -> None:
    """Import what training ``run`` needs; nothing where a process has it already.

    What is imported stays. Python would look again and again for garbage among all that is made meanwhile, a quarter of the
    time, and later whenever it looks; here it does neither.
    """
    if OPTIMIZER in sys.modules:
        return
    gc.disable()
    try:
        with hidden(BY_BOTH):
            with hidden(BY_DIFFUSERS):
                import_module("ablation.training.trainer")
                import_module(f"ablation.systems.{run.settings.system}.system")
                import_module(OPTIMIZER)
            if run.strategy.train.lora is not None:
                import_module("peft")
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Who asks whether the package is installed is told that it is not, unless the process has it already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
