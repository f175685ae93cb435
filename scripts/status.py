"""Show every run of the studies that were started: state, step, loss, memory, speed, time left, machine, attempt.

    python scripts/status.py [STUDY ...] [--watch | --all]

Reads the files of results/ and nothing else, so it works beside a running Snakemake, and on any machine that sees them.
A run that makes no progress is marked, with the reason for thinking so. What the words mean: docs/watching.md.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.cli import call
from ablation.errors import UserError
from ablation.live.reading import Files
from ablation.live.screen import BLOCKS, picture
from ablation.live.study import Study, find_studies
from ablation.live.table import Line

if TYPE_CHECKING:
    from rich.text import Text

ROOT = Path(__file__).parent.parent
LINES = 50  # shown without --all
WIDE = 1000  # characters a line where nobody's terminal sets a limit
EVERY = 2.0  # seconds between two looks
SHARE = 0.1  # of the time may go into looking: where the file system is slow, looks are rarer


def look(args: argparse.Namespace, files: Files) -> list[Study]:
    """The studies as they are now."""
    return [Study(folder, files) for folder in find_studies(args.results, args.studies)]


def blocks() -> str:
    """What a bar is made of where the output takes it."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#."
    return BLOCKS


def once(args: argparse.Namespace) -> None:
    """One look."""
    show(look(args, Files()), None if args.all else LINES)


def show(studies: Sequence[Study], height: int | None) -> None:
    """Print the studies: plain text where the output is no terminal, or where the user wants no colours."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    lines = picture(studies, width, height, blocks()) or [Line([("no study was started yet", "")])]
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        sys.stdout.write("".join(f"{line.text[:width]}\n" for line in lines))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for line in lines:
        console.print(styled(line), no_wrap=True, overflow="ellipsis")


def watch(args: argparse.Namespace) -> None:
    """Look again and again on a page of the terminal's own, until Ctrl-C; the last look stays."""
    if not sys.stdout.isatty():
        raise UserError("--watch needs a terminal; without it one look is printed")
    studies: list[Study] = []
    try:
        from rich.console import Console, Group
        from rich.live import Live

        console = Console(highlight=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for studies in looks(args):
                lines = [
                    Line([(time.strftime("%H:%M:%S"), "dim")]),
                    *picture(studies, console.width, console.height - 1, blocks()),
                ]
                live.update(Group(*map(styled, lines)), refresh=True)
    except KeyboardInterrupt:
        show(studies, LINES)


def looks(args: argparse.Namespace) -> Iterator[list[Study]]:
    """The studies, again and again."""
    files = Files()
    while True:
        started = time.monotonic()
        yield look(args, files)
        time.sleep(max(EVERY, (time.monotonic() - started) / SHARE))


def styled(line: Line) -> "Text":
    """A line as rich shows it."""
    from rich.text import Text

    return Text.assemble(*line.pieces, no_wrap=True, overflow="ellipsis")


def main() -> None:
    """Look once, or until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="their names; all that were started where none is given")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="look again every few seconds, until Ctrl-C")
    how.add_argument("--all", action="store_true", help="a line for every run, however many there are")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the results")
    args = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `status.py | head` ends without a word
    (watch if args.watch else once)(args)


if __name__ == "__main__":
    call(main)
