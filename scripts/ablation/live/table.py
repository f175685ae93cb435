"""The runs of a study as a table that fits a terminal: what needs a person first, the reason below its run or runs."""

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple

from ablation.live.attempt import duration
from ablation.live.reading import words
from ablation.live.run import ATTENTION, NOT_SUBMITTED, STATES, Run

STYLES = {
    **dict.fromkeys(ATTENTION, "bold red"),
    **dict.fromkeys(("training", "evaluating"), "green"),
    **dict.fromkeys(("starting", "trained"), "cyan"),
    **dict.fromkeys(("untrained", "diverged", "oom"), "magenta"),
    "preempted": "yellow",
}
QUIET = "dim"  # of all other states, and of what explains
REASON_LINES = 2
HASH = re.compile(r"-[0-9a-f]{8}$")
SHORTEST = 12  # characters of a run's name


class Line(NamedTuple):
    """Pieces of text, each with a style as rich names it."""

    pieces: Sequence[tuple[str, str]]

    @property
    def text(self) -> str:
        """Without styles."""
        return "".join(text for text, _ in self.pieces)


class Column(NamedTuple):
    """A column: its heading, what it holds of a run, how early it goes where width is short (0: never)."""

    head: str
    cell: Callable[[Run], str]
    left: bool = False
    spare: int = 0


def table(runs: Sequence[Run], width: int, most: int | None) -> list[Line]:
    """The runs in at most ``most`` lines of ``width`` characters; those for which there is no room are counted."""
    ordered = sorted(runs, key=_rank)
    reasons = _fitting(ordered, width, most)
    shown, rest = ordered[: len(reasons)], ordered[len(reasons) :]
    lines = []
    if shown:
        head, *rows = _rows(shown, width, ordered)
        lines = [head, *(line for row, below in zip(rows, reasons, strict=True) for line in (row, *below))]
    if rest:
        counted = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in rest).items())
        lines.append(Line([(f"and {len(rest)} more: {counted}" if shown else counted, QUIET)]))
    return lines


def _rank(run: Run) -> tuple:
    """States as they stand in :data:`STATES`; what ended last first; what shall not run by reasons; else as planned."""
    return STATES.index(run.state), -run.ended, run.why if run.state in NOT_SUBMITTED else ""


def _fitting(ordered: Sequence[Run], width: int, most: int | None) -> list[list[Line]]:
    """The reasons of the runs that fit: of those at the beginning. One that several share stands below the last."""
    reasons: list[list[Line]] = []
    used = 1  # the heading
    for run, after in zip_longest(ordered, ordered[1:]):
        shared = after is not None and (run.state, run.why) == (after.state, after.why)
        below = [] if shared else reason_lines(run.why, run.state, width)
        used += 1 + len(below)
        line_for_rest = after is not None
        if most is not None and used + line_for_rest > most:
            break
        reasons.append(below)
    return reasons


def reason_lines(why: str, state: str, width: int) -> list[Line]:
    """Why something is in a state, below it."""
    style, indent = STYLES.get(state, QUIET).removeprefix("bold "), 4 * " "
    wrapped = textwrap.wrap(
        why, max(20, width), initial_indent=indent, subsequent_indent=indent, max_lines=REASON_LINES, placeholder=" …"
    )
    return [Line([(text, style)]) for text in wrapped]


def _rows(runs: Sequence[Run], width: int, everything: Sequence[Run]) -> list[Line]:
    """The heading and a line a run. Where width is short: shorter names, closer columns, fewer columns, in this order."""
    columns = [column for column in COLUMNS if any(column.cell(run) for run in runs)]
    ways = ((shorten, gap) for shorten in (_whole, _without_hash, _without_common) for gap in (2, 1))
    for shorten, gap in ways:
        names = shorten(runs, everything)
        if _width(columns, names, runs, gap) <= width:
            break
    shortest = [name[:SHORTEST] for name in names]
    for column in sorted((column for column in columns if column.spare), key=lambda column: column.spare):
        if _width(columns, shortest, runs, gap) > width:
            columns.remove(column)
    space = width - _width(columns, [""], runs, gap)
    names = [_cut(name, max(space, SHORTEST)) for name in names]
    cells = [_aligned("run", names, left=True)]
    cells += [_aligned(column.head, [column.cell(run) for run in runs], column.left) for column in columns]
    head, *rows = zip(*cells, strict=True)
    lines = [Line([((gap * " ").join(head).rstrip(), QUIET)])]
    for run, (name, state, *numbers) in zip(runs, rows, strict=True):
        style = STYLES.get(run.state, QUIET)
        rest = (gap * " ").join(["", *numbers]).rstrip()
        lines.append(Line([(name + gap * " ", ""), (state if rest else state.rstrip(), style), (rest, "")]))
    return lines


def _whole(runs: Sequence[Run], everything: Sequence[Run]) -> list[str]:
    """The names of the runs' folders."""
    return [words(run.id) for run in runs]


def _without_hash(runs: Sequence[Run], everything: Sequence[Run]) -> list[str]:
    """Names without the hash at their end, where they are as good without it."""
    cut = [HASH.sub("", words(run.id)) for run in runs]
    return cut if len(set(cut)) == len(cut) else _whole(runs, everything)


def _without_common(runs: Sequence[Run], everything: Sequence[Run]) -> list[str]:
    """The same with dots for the words that all runs of the study share."""
    common = set.intersection(*(set(words(run.id).split("-")) for run in everything))
    parts = [["…" if word in common else word for word in name.split("-")] for name in _without_hash(runs, everything)]
    return ["-".join(word for word, _ in groupby(part)) for part in parts]


def _width(columns: Sequence[Column], names: Sequence[str], runs: Sequence[Run], gap: int) -> int:
    widths = [max(len(column.head), *(len(column.cell(run)) for run in runs)) for column in columns]
    return max(map(len, names)) + sum(widths) + gap * len(columns)


def _aligned(head: str, cells: Sequence[str], left: bool) -> list[str]:
    width = max(len(head), *map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in (head, *cells)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _step(run: Run) -> str:
    if run.step is None:
        return ""
    return f"{run.step:.0f}" if run.total_steps is None else f"{run.step:.0f}/{run.total_steps:.0f}"


def _left(run: Run) -> str:
    known = None not in (run.total_steps, run.step, run.step_s) and run.state == "training"
    return duration(max(0.0, run.total_steps - run.step) * run.step_s) if known else ""


def _digits(value: float | None) -> str:
    """Three digits, without an exponent where there need not be one."""
    if value is None:
        return ""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


COLUMNS = (  # after the run's name; the state is the first
    Column("state", lambda run: run.doing, left=True),
    Column("step", _step),
    Column("loss", lambda run: _digits(run.loss), spare=5),
    Column("GiB", lambda run: _digits(run.memory_gib), spare=3),
    Column("samples/s", lambda run: _digits(run.samples_per_s), spare=2),
    Column("left", _left, spare=6),
    Column("node", lambda run: run.node.partition(".")[0], left=True, spare=4),
    Column("try", lambda run: str(run.tries or ""), spare=1),
)
