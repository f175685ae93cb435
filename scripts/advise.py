"""Advise how to train a study on a card: which batch, accumulation, strategy and precision fit, and which is fastest.

    python scripts/advise.py vggt-eth3d --gpu rtx4090 --effective-batch 256 [--gpus 8]

Memory is predicted, without a GPU, weights or data. Speeds are those of the study's probe where it was made on that card, else
estimated from the floating-point operations of a step. Exit status: 0 when something fits, 1 when nothing does, 2 for an error.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from ablation.advise import Advice, Miss, Option, advise, candidates, closest
from ablation.cli import aligned, call
from ablation.hardware import Card, load_card
from ablation.preflight import unsupported
from ablation.settings import Scale
from ablation.speeds import Measured, Speed, speeds
from ablation.study import AXES, load_study, study_file
from ablation.sweep import Run, expand
from ablation.vram.flops import Flops
from ablation.vram.margin import MARGIN
from ablation.vram.predict import Predictor

ROOT = Path()  # of whoever runs it; what the workflow brings is known as well
NOTHING_FITS = 1
SHOWN = 20  # options whose speeds compare; more than a screen nobody reads
HEAD = ("strategy", "rank", "precision", "batch", "accum", "GiB", "head-room", "speed", "")


def rated(runs: list[Run], measured: Measured) -> list[Speed]:
    """Their speeds, with a bar while operations are counted."""
    flops = Flops(runs)
    with tqdm(total=len(runs), desc="comparing speeds", unit="option", leave=False, disable=None) as bar:

        def counted(run: Run) -> float:
            bar.update()
            return flops(run)

        return speeds(runs, measured, counted)


def heading(study: str, args: argparse.Namespace, card: Card) -> str:
    """What the advice is for, and how far its predictions are to be trusted."""
    cards, share = (f"{args.gpus} x {card.name}", f" x {args.gpus} GPUs") if args.gpus > 1 else (card.name, "")
    return (
        f"{study} ({args.scale}) on {cards}: {card.usable_gib:g} GiB usable,"
        f" effective batch {args.effective_batch} = batch x accum{share}\n"
        f"GiB: predicted for each GPU; 95 % of the predictions checked on real GPUs were off by less than {MARGIN:.1%}"
    )


def report(card: Card, advice: Advice) -> str:
    """The advice as text: what fits, best first, then where each strategy, rank and precision ends."""
    groups = list(dict.fromkeys(speed.group for _, speed in advice.options))
    best = {group: [pair for pair in advice.options if pair[1].group == group][:SHOWN] for group in groups}
    head, *lines = aligned([HEAD, *(_cells(*pair, card.usable_gib) for pairs in best.values() for pair in pairs)])
    out, rest = [head], iter(lines)
    for number, pairs in enumerate(best.values()):
        out += ["", *islice(rest, len(pairs))] if number else islice(rest, len(pairs))
    if hidden := len(advice.options) - len(lines):
        out.append(f"  ... and {hidden} more that fit")
    if any(not speed.measured for _, speed in advice.options):
        out += ["", "speed: samples/s against the best; ~ estimated from FLOPs, by which all batch sizes are equally fast"]
        if any(groups):
            out.append("       and which do not compare precisions: each has a best of its own")
    return "\n".join([*out, *_rest(advice.misses)])


def _cells(option: Option, speed: Speed, usable: float) -> tuple[str, ...]:
    axes, total = option.run.axes, option.prediction.total
    relative = f"{'' if speed.measured else '~'}{speed.relative:.2f}"
    mark = "" if option.prediction.verdict == "fits" else option.prediction.verdict
    sizes = (str(axes["batch"]), str(axes["accumulation"]), f"{total:.2f}", f"{usable - total:.2f}")
    return (*_words(option.run), *sizes, relative, mark)


def _words(run: Run) -> tuple[str, str, str]:
    """Strategy (with the values of further axes), rank and precision."""
    further = [f"{name.rsplit('.', 1)[-1]}={value}" for name, value in run.axes.items() if name not in AXES]
    return " ".join([run.axes["strategy"], *further]), str(run.rank or "-"), run.axes["precision"]


def _rest(misses: Sequence[Miss]) -> list[str]:
    if not misses:
        return []
    rows = [(*_words(miss.smallest.run), _where(miss)) for miss in misses]
    return ["", "does not fit", *aligned(rows, left=(0, 3))]


def _where(miss: Miss) -> str:
    batch, size = miss.smallest.run.axes["batch"], miss.smallest.prediction.total
    end = " and above" if miss.open_end else f" to {miss.last}"
    return f"batch {batch}{'' if batch == miss.last else end}: OOM, {size:.2f} GiB"


def nothing_fits(card: Card, option: Option) -> str:
    """What comes closest, and by how much it misses."""
    strategy, rank, precision = _words(option.run)
    total, axes = option.prediction.total, option.run.axes
    return (
        f"nothing fits. Closest: strategy {strategy}, rank {rank}, {precision}, batch {axes['batch']} x {axes['accumulation']}:"
        f" {total:.2f} GiB at the peak of the {option.prediction.phase} pass, {total - card.usable_gib:.2f} GiB too much"
    )


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
    groups = candidates(runs, card, args.effective_batch, args.gpus)
    measured = Measured(ROOT / f"results/{args.scale}/{path.stem}/probe.csv", card, runs)
    predictor = Predictor([run for group in groups for run in group], card, ROOT / "results/traces")
    bar = tqdm(groups, desc="predicting memory", unit="group", leave=False, disable=None)
    advice = advise(bar, predictor, partial(rated, measured=measured))
    sys.stdout.write(f"{heading(path.stem, args, card)}\n")
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
