"""What each way to hold less takes off a step's memory at the released sizes: peak GiB on one RTX 4090, as predicted.

    python benchmarks/memory_roads.py [--record]

Needs no GPU, weights or data; about five minutes. A batch of one, rank 16, bf16.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "scripts")]

from recording import Row, record, told

from ablation.hardware import load_card
from ablation.study import load_study
from ablation.sweep import Run, expand
from ablation.vram.predict import Predictor

ROOT = Path(__file__).parent.parent
CARD = load_card("rtx4090", ROOT / "config/hardware")
TESTS = "tests/test_lean_training.py::"
SAME, LEARNS, FROZEN = (
    f"{TESTS}test_{name}"
    for name in ("the_fused_step_is_the_usual_step", "a_lean_run_learns_as_much", "training_beside_frozen_weights_in_few_bits")
)
AXES = {"batch": 1, "accumulation": 1, "gpus": 1, "precision": "bf16", "rank": 16, "seed": 0}
UNCLIPPED = {"training": {"clip": None}}
INT8, NF4 = {"frozen_weights": "int8"}, {"frozen_weights": "nf4"}


class Road(NamedTuple):
    """A strategy of a study, another or the same one with ``changes``, and the test that compares what they learn."""

    what: str
    study: str
    strategies: tuple[str, str]
    changes: dict[str, Any]
    test: str


ROADS = [
    Road("Hunyuan3D, whole transformer: bf16 weights, 8-bit moments, checkpointing (losses within 2 %)",
         "hunyuan3d-4090", ("A", "D"), {}, LEARNS),
    Road("Hunyuan3D, that with the step within the backward pass", "hunyuan3d-4090", ("D", "D"), {"fused_backward": True}, SAME),
    Road("Hunyuan3D, LoRA with checkpointing: int8 frozen weights (losses within 1 %)",
         "hunyuan3d-4090", ("C", "C"), INT8, FROZEN),
    Road("Hunyuan3D, LoRA with checkpointing: nf4 frozen weights (losses within 10 %)",
         "hunyuan3d-4090", ("C", "C"), NF4, FROZEN),
    Road("VGGT, strategy C: int8 frozen weights (losses within 1 %)", "vggt-eth3d", ("C", "C"), INT8, FROZEN),
    Road("VGGT, strategy C: nf4 frozen weights (losses within 10 %)", "vggt-eth3d", ("C", "C"), NF4, FROZEN),
    Road("Kolors, strategy B on one card: int8 frozen weights (losses within 1 %)", "kolors-3x4090", ("B", "B"), INT8, FROZEN),
    Road("Kolors, strategy B on one card: nf4 frozen weights (losses within 10 %)", "kolors-3x4090", ("B", "B"), NF4, FROZEN),
]  # fmt: skip


def run_of(road: Road, strategy: str, changes: dict[str, Any]) -> Run:
    """The run of ``strategy`` with ``changes``; without clipping on both sides, where one side cannot clip."""
    alone = {"keep": [], "exclude": [], "include": [], "baseline": None, "claims": None, "recommended": None}
    clip = UNCLIPPED if "fused_backward" in road.changes else {}
    laid_over = {"scale": "full", "sweep": AXES | {"strategy": strategy}, "strategies": {strategy: changes}, **alone, **clip}
    return expand(load_study(ROOT / f"config/studies/{road.study}.yaml", laid_over), road.study)[0]


def main() -> None:
    """Predict both sides of every road."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep the numbers in benchmarks/speed/")
    args = parser.parse_args()
    sides = [
        (run_of(road, road.strategies[0], {}), run_of(road, road.strategies[1], road.changes)) for road in ROADS
    ]
    predictor = Predictor([run for pair in sides for run in pair], CARD)
    predictor.traces.prepare(workers=2)
    rows = [
        Row(road.what, predictor(before).total, predictor(after).total, "GiB", road.test)
        for road, (before, after) in zip(ROADS, sides, strict=True)
    ]
    print(told(rows), end="")
    if args.record:
        record("memory_roads", rows)


if __name__ == "__main__":
    main()
