"""Predict the memory ladder of a study: what its baseline's step would need with one technique after another."""

import argparse
from pathlib import Path

from ablation.cli import call
from ablation.files import write_csv
from ablation.hardware import load_card
from ablation.resolved import load_study
from ablation.waiting import say


def main() -> None:
    """Trace what has not been traced, predict, write a row a technique."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--traces", type=Path, help="a folder that keeps traced steps")
    parser.add_argument("--workers", type=int, default=1, help="processes that trace steps")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    name, study = load_study(args.study)
    card = load_card(study.hardware, args.cards)
    say(f"{name}: predicting the memory ladder on the {card.name}")
    from ablation.ladder import ladder  # takes seconds to import

    write_csv(args.output, ladder(study, name, card, args.traces, args.workers))


if __name__ == "__main__":
    call(main)
