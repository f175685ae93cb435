"""Advise how to train a study on a card: which batch, accumulation, strategy and precision fit, and which is fastest.

    python scripts/advise.py vggt-eth3d --gpu rtx4090 --effective-batch 256 [--gpus 8]

Memory is predicted, without a GPU, weights or data. Speeds are those of the study's probe where it was made on that card, else
estimated from the floating-point operations of a step. Exit status: 0 when something fits, 1 when nothing does, 2 for an error.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import get_args

from ablation.cli import call
from ablation.hardware import load_card
from ablation.settings import Scale
from ablation.speeds import Measured
from ablation.study import load_study, study_file
from ablation.sweep import expand
from ablation.waiting import followed, say

ROOT = Path()  # of whoever runs it; what the workflow brings is known as well
NOTHING_FITS = 1


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def main() -> None:
    """Predict, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a name in config/studies, or a file")
    parser.add_argument("--gpu", required=True, help="a card of config/hardware, such as rtx4090")
    parser.add_argument(
        "--effective-batch", type=positive, required=True, help="samples an optimizer step, of all GPUs together"
    )
    parser.add_argument("--gpus", type=positive, default=1, help="GPUs, data parallel (1)")
    parser.add_argument("--scale", choices=get_args(Scale), default="full", help="full, the released size, or demo")
    args = parser.parse_args()
    path, card = study_file(args.study, ROOT / "config/studies"), load_card(args.gpu, ROOT / "config/hardware")
    runs = expand(load_study(path, {"scale": args.scale, "hardware": args.gpu}), path.stem)
    say(f"{path.stem} on {card.name}: predicting the memory of what makes an effective batch of {args.effective_batch}")
    from ablation.advice import heading, nothing_fits, rated, report  # these take seconds to import
    from ablation.advise import advise, candidates, closest
    from ablation.preflight import unsupported
    from ablation.vram.predict import Predictor

    groups = candidates(runs, card, args.effective_batch, args.gpus)
    measured = Measured(ROOT / f"results/{args.scale}/{path.stem}/probe.csv", card, runs)
    predictor = Predictor([run for group in groups for run in group], card, ROOT / "results/traces")
    told = followed(groups, "predicting memory", len(groups), "group")
    advice = advise(told, predictor, partial(rated, measured=measured))
    sys.stdout.write(f"{heading(path.stem, args.scale, args.gpus, args.effective_batch, card)}\n")
    if measured.note:
        sys.stdout.write(f"{measured.note}\n")
    if to_come := next(filter(None, (unsupported(run, card) for group in groups for run in group)), None):
        sys.stdout.write(f"{to_come}: this is what memory allows\n")
    if not advice.options:
        sys.stdout.write(f"{nothing_fits(card, closest(advice.misses))}\n")
        sys.exit(NOTHING_FITS)
    sys.stdout.write(f"\n{report(card, advice)}\n")


if __name__ == "__main__":
    call(main)
