"""Probe every cell of a study: a few steps of each on the device, beside what the plan predicted."""

import argparse
import sys
from pathlib import Path

from ablation.cli import call
from ablation.errors import UserError
from ablation.files import write_csv
from ablation.hardware import load_card
from ablation.probe.cell import Cell, unprobeable
from ablation.probe.command import add_probe_arguments, prober_of
from ablation.probe.table import read_plan, row_of, text_table
from ablation.resolved import load_study
from ablation.sweep import expand, one_per_cell

COLUMNS = {
    "outcome": "outcome",
    "peak_allocated_gib": "peak GiB",
    "predicted_allocated_gib": "predicted",
    "error_allocated": "error",
    "peak_reserved_gib": "reserved GiB",
    "predicted_reserved_gib": "predicted",
    "error_reserved": "error",
    "peak_phase": "phase",
    "step_s": "s/step",
    "samples_per_s": "samples/s",
}


def main() -> None:
    """Measure what is not measured yet, write the table, show it. An error only where no cell could be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_probe_arguments(parser)
    parser.add_argument("--plan", type=Path, required=True, help="plan.csv")
    args = parser.parse_args()
    name, study = load_study(args.study)
    prober, device = prober_of(args, study.scale)
    card, runs, plan = load_card(study.hardware, args.cards), one_per_cell(expand(study, name)), read_plan(args.plan)
    invalid = {run.id: {"outcome": "invalid", "reason": reason} for run in runs if (reason := unprobeable(run, card))}
    cells = {run.id: Cell(run, card, device) for run in runs if run.id not in invalid}
    records = prober.measure(list(cells.values()), f"probe {name}")
    measured = {run: records[cell.name] for run, cell in cells.items()}
    rows = [row_of(run, {**invalid, **measured}[run.id], plan.get(run.id, {})) for run in runs]
    text = text_table(name, "cells", rows, COLUMNS)
    if not any(row["outcome"] in ("completed", "oom") for row in rows):
        raise UserError(f"no cell could be measured\n{text}")
    write_csv(args.output, rows)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    call(main)
