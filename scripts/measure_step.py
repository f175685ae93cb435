"""Measure a few steps of one run, in this process alone. Its outcome, completed or oom, is written; the exit status is 0."""

import argparse
from pathlib import Path

from ablation.cli import call, json_or_file
from ablation.files import write_json
from ablation.hardware import Card
from ablation.sweep import Run

STEPS = 6  # the clock leaves the first three out


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=json_or_file, required=True, help="a run.yaml")
    parser.add_argument("--name", required=True, help="what the card is called")
    parser.add_argument("--card", type=json_or_file, required=True, help="the card whose memory the device is held to")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    import torch

    from ablation.probe.measure import measure
    from ablation.systems import load_system
    from ablation.training.randomness import make_deterministic
    from ablation.vram.budget import hold_to_card

    torch.set_num_threads(1)
    make_deterministic()  # as the trainer does; it decides on the workspaces of matrix products
    run, card = Run.from_view(args.run), Card.model_validate(args.card)
    device = torch.device(args.device)
    budget = hold_to_card(args.name, card, device)
    write_json(args.output, measure(run, load_system(run.settings), device, STEPS, budget))


if __name__ == "__main__":
    call(main)
