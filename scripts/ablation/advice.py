"""What the advisor says, as text: what fits, best first, and where each strategy, rank and precision ends."""

from collections.abc import Sequence
from itertools import islice

from ablation.advise import Advice, Miss, Option
from ablation.cli import aligned
from ablation.hardware import Card
from ablation.speeds import Measured, Speed, speeds
from ablation.study import AXES
from ablation.sweep import Run
from ablation.vram.flops import Flops
from ablation.vram.margin import MARGIN
from ablation.waiting import followed

SHOWN = 20  # options whose speeds compare; more than a screen nobody reads
HEAD = ("strategy", "rank", "precision", "batch", "accum", "GiB", "head-room", "speed", "")


def rated(runs: list[Run], measured: Measured) -> list[Speed]:
    """The speeds of runs, with progress while operations are counted."""
    flops = Flops(runs)
    counted = dict(zip(map(id, runs), map(flops, followed(runs, "comparing speeds", len(runs), "option")), strict=True))
    return speeds(runs, measured, lambda run: counted[id(run)])


def heading(study: str, scale: str, gpus: int, effective_batch: int, card: Card) -> str:
    """What the advice is for, and how far its predictions are to be trusted."""
    cards, share = (f"{gpus} x {card.name}", f" x {gpus} GPUs") if gpus > 1 else (card.name, "")
    return (
        f"{study} ({scale}) on {cards}: {card.usable_gib:g} GiB usable,"
        f" effective batch {effective_batch} = batch x accum{share}\n"
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
