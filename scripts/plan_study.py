"""Write the plan of a study: a row for each run with what it would train, and whether it can run."""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ablation.cli import call
from ablation.files import write_csv
from ablation.hardware import load_card
from ablation.preflight import plan
from ablation.resolved import load_study

CELL = ("strategy", "rank", "batch", "accumulation", "gpus", "precision")
HEAD = (
    *(
        f"{'strategy':<10}",
        "rank",
        "batch",
        "accum",
        "gpus",
        f"{'precision':<9}",
        f"{'trainable':>12}",
        " share",
        f"{'predicted':>9}",
    ),
    *("of GiB", " memory"),
)
SHOWN = 40  # cells; the file has them all


def summary(name: str, rows: list[dict[str, Any]], missing: list[str]) -> str:
    """What a person wants to know of a plan."""
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(row["verdict"] for row in rows).items())
    lines = [f"{name}: {len(rows)} runs ({verdicts})"]
    cells = list({tuple(row[axis] for axis in CELL): row for row in rows}.values())
    if any("predicted_gib" in row for row in cells):
        lines.append(f"  {' '.join(HEAD)}")
    lines += [f"  {_line(row)}" for row in cells[:SHOWN] if "predicted_gib" in row]
    if len(cells) > SHOWN:
        lines.append(f"  ... and {len(cells) - SHOWN} more cells in plan.csv")
    return "\n".join([*lines, *(f"missing: {line}" for line in missing)])


def _line(row: dict[str, Any]) -> str:
    share = row["trainable_params"] / row["total_params"]
    axes = f"{row['strategy']:<10} {row['rank'] or '-':>4} {row['batch']:>5} {row['accumulation']:>5} {row['gpus']:>4}"
    sizes = f"{row['trainable_params']:>12,} {share:>6.2%} {row['predicted_gib']:>9.2f} {row['budget_gib']:>6.2f}"
    published = f"  (published: {row['published_gb']:g} GB)" if row["published_gb"] else ""
    return f"{axes} {row['precision']:<9} {sizes}  {row['memory_verdict']}{published}"


def main() -> None:
    """Plan, write, summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--traces", type=Path, help="a folder that keeps traced steps for the next plan")
    parser.add_argument("--workers", type=int, default=1, help="processes that trace steps")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    name, study = load_study(args.study)
    rows, missing = plan(study, name, load_card(study.hardware, args.cards), args.traces, args.workers)
    write_csv(args.output, rows)
    sys.stdout.write(summary(name, rows, missing) + "\n")


if __name__ == "__main__":
    call(main)
