"""Seeds, and the state of every random generator as plain data."""

import os
import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_of(seed: int, rank: int) -> int:
    """The seed of the process ``rank`` of several, once they have built the same model."""
    return (seed + rank * 1_000_003) % 2**32


CUBLAS_WORKSPACES = ":4096:8"  # what deterministic matrix products need


def make_deterministic(always: bool = True) -> None:
    """Have torch choose deterministic algorithms, or any. Call before CUDA is initialised; they cost memory and time.

    New memory is not filled beside it, as torch would: no step reads what it has not written, and the filling takes time.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACES)
    torch.use_deterministic_algorithms(always, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def random_state() -> dict[str, Any]:
    """State of all generators, as types that ``torch.load(weights_only=True)`` accepts."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Continue where :func:`random_state` was taken."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, np.array(words, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
