"""The goals for memory at the released sizes: peak GiB of a step as each study was published, and in the least memory.

    python benchmarks/memory_goals.py [--record]

By prediction, on one RTX 4090: no GPU, weights or data; about four minutes. Same batch (1), resolution, rank (16) and number
format (bf16) on both sides, and the same losses and gradients, but for the order of sums in the dense head. Before: blocks
recomputed where the published strategy says so, the dense head whole. After: that head a frame at a time, all recomputed, and
frozen weights in host memory.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from recording import Row, record, told

from ablation.hardware import load_card
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.systems.vggt.model import dpt_head
from ablation.systems.vggt.system import System
from ablation.vram.predict import Predictor

ROOT = Path(__file__).parent.parent
CARD = load_card("rtx4090", ROOT / "config/hardware")
TEST = "tests/test_recompute.py::test_losses_and_gradients_are_the_same_bit_for_bit"
AXES = {"batch": 1, "accumulation": 1, "gpus": 1, "precision": "bf16", "rank": 16, "seed": 0}
HEADS = ["point_head", "camera_head"]  # of which one takes no part, and one computes on eight tokens


class Goal(NamedTuple):
    """A strategy of a study and the modules that it keeps in host memory; ``gib``: what it is to stay within."""

    what: str
    study: str
    strategy: str
    host: list[str]
    gib: float

    def run(self, lean: bool) -> Run:
        """The first run of the strategy, as published or in the least memory."""
        changes = {"gradient_checkpointing": True, "host": self.host} if lean else {}
        alone = {"keep": [], "exclude": [], "include": [], "baseline": None, "claims": None, "recommended": None}
        laid_over = {
            "scale": "full",
            "sweep": AXES | {"strategy": self.strategy},
            "strategies": {self.strategy: changes},
            **alone,
        }
        return expand(load_study(ROOT / f"config/studies/{self.study}.yaml", laid_over), self.study)[0]


GOALS = [
    Goal("VGGT A", "vggt-eth3d", "A", HEADS, 5),
    Goal("VGGT B", "vggt-eth3d", "B", HEADS, 7),
    Goal("VGGT C", "vggt-eth3d", "C", ["point_head"], 10),
    Goal("Hunyuan3D LoRA", "hunyuan3d-4090", "C", ["vae", "conditioner", "model.blocks.0-4"], 8),
    Goal("Kolors adapter on one card", "kolors-3x4090", "B", ["text_encoder"], 12),
]


@contextmanager
def blocks_alone() -> Iterator[None]:
    """VGGT's blocks are all that can be recomputed, and its dense head takes all frames at once."""
    recomputable = System.recomputable

    def blocks(system: System, model) -> list:
        return [unit for unit in recomputable(system, model) if unit is not model.depth_head]

    with patch.object(System, "recomputable", blocks), patch.object(dpt_head, "PIXELS_AT_ONCE", sys.maxsize):
        yield


def predicted(goal: Goal, lean: bool) -> float:
    """Peak GiB, with the CUDA context."""
    run = goal.run(lean)
    return Predictor([run], CARD)(run).total


def main() -> None:
    """Predict both sides of every goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep the numbers in benchmarks/speed/")
    args = parser.parse_args()
    with blocks_alone():
        before = [predicted(goal, lean=False) for goal in GOALS]
    after = [predicted(goal, lean=True) for goal in GOALS]
    rows = [
        Row(f"Memory of {goal.what} (goal {goal.gib:g} GiB)", was, found, "GiB", TEST)
        for goal, was, found in zip(GOALS, before, after, strict=True)
    ]
    sys.stdout.write(told(rows))
    if args.record:
        record("memory_goals", rows)


if __name__ == "__main__":
    main()
