"""Repeat a run of a study in a folder of its own, and say whether it is the same: losses, trained weights, metrics.

On a CPU it is, bit by bit; on a GPU it need not be. Exit status: 0 if all is equal, 1 if not. Where a repetition was
interrupted, it goes on from its last checkpoint; one that came to its end is done again.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ablation import leave
from ablation.cli import aligned, call
from ablation.errors import UserError
from ablation.files import write_json
from ablation.repeat import Repetition, circumstances, compare
from ablation.training.launcher import passed_on


def do_again(repetition: Repetition) -> None:
    """Train and evaluate, by the workflow's own programs."""
    if (repetition.folder / "metrics.json").exists():
        shutil.rmtree(repetition.folder)
    for program, *arguments in repetition.commands():
        threads = arguments[arguments.index("--threads") + 1]
        command = [sys.executable, str(Path(__file__).parent / program), *arguments]
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": threads}) as process, passed_on([process]):
            status = process.wait()
        if status == leave.STATUS:
            sys.exit(status)
        if status:
            raise UserError(f"{program} failed (status {status}), so there is nothing to compare; what it said is above")


def main() -> None:
    """Repeat, compare, tell, and write the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json, beside which runs/ lies")
    parser.add_argument("--run", required=True, help="the run's id")
    args = parser.parse_args()
    repetition = Repetition(args.study, args.run)
    do_again(repetition)
    found = compare(repetition.first, repetition.folder)
    around = circumstances(repetition.first, repetition.folder)
    equal = not any(difference for _, difference in found)
    told = {what: difference or "equal" for what, difference in found}
    write_json(repetition.folder / "compared.json", {"run": args.run, "equal": equal, **told, "circumstances": around})
    lines = aligned([["", args.run], *([what, text] for what, text in told.items())], left=(0, 1))
    around = [f"  not the same as then: {text}" for text in around]
    sys.stdout.write("\n".join([*lines, *around, f"  in {repetition.folder}"]) + "\n")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    call(main)
