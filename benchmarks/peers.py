"""An optimizer step of ours beside the authors' own: time, activations, start-up, and memory at the released size.

    python benchmarks/peers.py vggt --upstream FOLDER [--pairs 6] [--commit HASH] [--record]

FOLDER is your checkout of the authors' code: facebookresearch/vggt, thu-ml/RoboticsDiffusionTransformer (rdt), or
Tencent-Hunyuan/Hunyuan3D-2.1 (hunyuan3d). What it imports is yours to install: iopath for vggt; for rdt and hunyuan3d
timm==1.0.3 with torchvision (a later timm has another RmsNorm, and other numbers), for hunyuan3d torchdiffeq as well.

Both sides have the same weights, batch and adapters, compute in fp32 on one CPU thread, clip, and step AdamW, ours as the
trainer does, theirs as a plain loop with torch's default. They recompute alike: VGGT's authors the aggregator, as their code
does by itself. First the loss and the gradient's norm of both: where they differ by more than 1e-4, it is not the same
training, and nothing is compared. Then each takes a step in turns, in a process of its own.
"""

import argparse
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from authors import opened
from peers_memory import gib_of
from peers_sides import CASES, Case, cpu_seconds, prepare, side_of
from recording import ROOT, Row, read_all, record, told  # which finds the library

from ablation.errors import UserError

TEST = "tests/test_parity.py::test_stored_outputs"  # the same training as theirs, step by step
SIDES = ("authors", "ours")
TOLERANCE = 1e-4
STARTS = 2


class Turn:
    """One side, ours or the authors', in its own process."""

    def __init__(self, side: str, case: Case, upstream: Path, folder: Path):
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, side, case, upstream, folder), daemon=True)
        self.process.start()

    def __call__(self, what: str):
        """Have it done; the answer."""
        self.pipe.send(what)
        return self.pipe.recv()


def _serve(pipe: Connection, side: str, case: Case, upstream: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    taken = side_of(side, case, upstream, folder)
    while True:
        pipe.send(getattr(taken, pipe.recv())())


def check_same(values: dict[str, dict[str, float]]) -> None:
    """Raises :class:`UserError` where loss or gradient norm of the sides differ."""
    for name, theirs in values["authors"].items():
        ours = values["ours"][name]
        if not abs(ours - theirs) <= TOLERANCE * abs(theirs):
            raise UserError(f"not the same training: {name} is {ours:.7g} with ours, {theirs:.7g} with the authors' code")


def compared(case: Case, upstream: Path, pairs: int) -> list[Row]:
    """Loss and norm, then steps in turns, activations and start-up of one case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(case, folder)
        turns = {side: Turn(side, case, upstream, folder) for side in SIDES}
        check_same({side: turn("first") for side, turn in turns.items()})
        seconds = [{side: turn("seconds") for side, turn in turns.items()} for _ in range(pairs)]
        held = {side: turn("activations") for side, turn in turns.items()}
        for turn in turns.values():
            turn.process.terminate()
        starts = [{side: _start(side, case, upstream, folder) for side in SIDES} for _ in range(STARTS)]
    return [_of_time(case, seconds), _row(case, "activations", [held], "MiB"), _row(case, "start-up, CPU", starts, "s")]


def _of_time(case: Case, seconds: list[dict[str, float]]) -> Row:
    """The median of the ratios, and their range."""
    ratios = sorted(pair["ours"] / pair["authors"] for pair in seconds)
    theirs = median(pair["authors"] for pair in seconds)
    return Row(f"{case.what}: a step [{ratios[0]:.2f}-{ratios[-1]:.2f}]", theirs, median(ratios) * theirs, "s", TEST)


def _row(case: Case, what: str, found: list[dict[str, float]], unit: str) -> Row:
    return Row(f"{case.what}: {what}", *(median(one[side] for one in found) for side in SIDES), unit, TEST)


def _start(side: str, case: Case, upstream: Path, folder: Path) -> float:
    """CPU seconds of a process until its first step could begin."""
    number = str(CASES[case.system].index(case))
    command = [sys.executable, __file__, case.system, "--upstream", str(upstream), "--start", side, number, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return float(done.stdout.split()[-1])


def commit_of(upstream: Path, given: str | None) -> str:
    """The commit of the checkout, or what was ``given`` for one that git does not know. Raises :class:`UserError`."""
    git = ["git", "-C", str(upstream), "rev-parse", "--show-toplevel", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    if done.returncode == 0 and Path((lines := done.stdout.split("\n"))[0]) == upstream.resolve():
        return lines[1][:7]
    if given is None:
        raise UserError(f"{upstream} is no checkout of git; say of which commit it is: --commit")
    return given


def rows_of(system: str, upstream: Path, pairs: int) -> list[Row]:
    """All cases of a system, told as they are found."""
    found: list[Row] = []
    for case in CASES[system]:
        rows = [*compared(case, upstream, pairs), _row(case, "memory at the released size", [gib_of(case, upstream)], "GiB")]
        sys.stdout.write(told(rows))
        sys.stdout.flush()
        found += rows
    return found


def main() -> None:
    """Compare a system; ``--start``: be one start, and print its seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=CASES)
    parser.add_argument("--upstream", type=Path, required=True, metavar="FOLDER", help="your checkout of the authors' code")
    parser.add_argument("--pairs", type=int, default=6, help="steps of each side")
    parser.add_argument("--commit", help="of the checkout, where git does not know it")
    parser.add_argument("--record", action="store_true", help="keep what was found in benchmarks/speed")
    parser.add_argument("--start", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.start:
        side, number, folder = args.start
        side_of(side, CASES[args.system][int(number)], args.upstream, Path(folder))
        sys.stdout.write(f"{cpu_seconds():.3f}\n")
        return
    try:
        authors, commit = opened(args.system, args.upstream), commit_of(args.upstream, args.commit)
        rows = rows_of(args.system, args.upstream, args.pairs)
    except UserError as error:
        sys.exit(f"peers: {error}")
    if args.record:
        others = [row for row in read_all().get("peers", {"rows": []})["rows"] if not row.what.startswith(f"{args.system} ")]
        record("peers", [*others, *(row._replace(what=f"{row.what}, {authors.REPOSITORY} {commit}") for row in rows)])


if __name__ == "__main__":
    main()
