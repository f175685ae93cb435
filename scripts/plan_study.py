"""Write the plan of a study: a row for each run with what it would train, and whether it can run."""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ablation.cli import call
from ablation.comparison import as_text, compare
from ablation.files import write_csv
from ablation.hardware import Card, load_card
from ablation.preflight import plan
from ablation.recommended import recommended_for
from ablation.resolved import load_study
from ablation.study import Study
from ablation.sweep import expand
from ablation.ways import Advisor

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


def compared(study: Study, name: str, card: Card, args: argparse.Namespace) -> str:
    """The study against the configuration that it names: in words for the console, and all rows beside the plan."""
    path = args.output.with_name("recommended.csv")
    recommended = recommended_for(study, args.recommended)
    if recommended is None:
        path.unlink(missing_ok=True)
        return ""
    runs = expand(study, name)
    advisor = Advisor(study, runs, recommended, card, args.traces, args.output.with_name("probe.csv"))
    rows = compare(study, runs, recommended, card, advisor)
    write_csv(path, [row.as_record(recommended) for row in rows])
    return f"{as_text(rows, str(study.recommended), recommended, study.scale)}\n"


def main() -> None:
    """Plan, write, summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--recommended", type=Path, required=True, help="folder of the recommended configurations")
    parser.add_argument("--traces", type=Path, help="a folder that keeps traced steps for the next plan")
    parser.add_argument("--workers", type=int, default=1, help="processes that trace steps")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    name, study = load_study(args.study)
    card = load_card(study.hardware, args.cards)
    rows, missing = plan(study, name, card, args.traces, args.workers)
    write_csv(args.output, rows)
    sys.stdout.write(summary(name, rows, missing) + "\n")
    sys.stdout.write(compared(study, name, card, args))


if __name__ == "__main__":
    call(main)
