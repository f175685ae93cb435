"""Find the largest batch of each cell of a study that fits its card, by probes."""

import argparse
import sys
from functools import partial
from pathlib import Path

from ablation.cli import call
from ablation.errors import UserError
from ablation.files import write_csv
from ablation.hardware import load_card
from ablation.probe.batches import LIMIT, largest_batches
from ablation.probe.command import add_probe_arguments, prober_of
from ablation.probe.table import text_table
from ablation.resolved import load_study
from ablation.sweep import expand
from ablation.waiting import say

COLUMNS = {
    "outcome": "outcome",
    "largest_batch": "largest batch",
    "guess": "guess",
    "trials": "trials",
    "peak_allocated_gib": "peak GiB",
    "peak_reserved_gib": "reserved GiB",
    "peak_phase": "phase",
}


def main() -> None:
    """Search, write the table, show it. An error only where no search came to an end."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_probe_arguments(parser)
    parser.add_argument("--traces", type=Path, help="a folder that keeps traced steps, from which the searches' starts come")
    args = parser.parse_args()
    name, study = load_study(args.study)
    say(f"{name}: searching the largest batches")
    from ablation.vram.predict import largest_batch  # takes seconds to import

    guess = partial(largest_batch, folder=args.traces, most=LIMIT)
    prober, device = prober_of(args, study.scale)
    rows = largest_batches(expand(study, name), load_card(study.hardware, args.cards), device, prober, guess)
    text = text_table(name, "searches", rows, COLUMNS)
    if not any(row["outcome"] in ("found", "oom") for row in rows):
        raise UserError(f"no search came to an end\n{text}")
    write_csv(args.output, rows)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    call(main)
