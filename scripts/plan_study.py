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
from ablation.sweep import expand


def summary(name: str, rows: list[dict[str, Any]], missing: list[str]) -> str:
    """What a person wants to know of a plan."""
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(row["verdict"] for row in rows).items())
    lines = [
        f"{name}: {len(rows)} runs ({verdicts})",
        f"  {'strategy':<10} {'rank':>4} {'trainable':>12} {'share':>7}  weights + optimizer",
    ]
    seen = {(row["strategy"], row["rank"], row["precision"]): row for row in rows}
    for row in seen.values():
        share = row["trainable_params"] / row["total_params"]
        static = sum(row[key] for key in ("frozen_weights_gib", "trained_weights_gib", "gradients_gib", "optimizer_gib"))
        what = f"{row['strategy']:<10} {row['rank'] or '-':>4} {row['trainable_params']:>12,} {share:>7.2%}"
        lines.append(f"  {what}  {static:.2f} GiB in {row['precision']}")
    return "\n".join([*lines, *(f"missing: {line}" for line in missing)])


def main() -> None:
    """Plan, write, summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    name, study = load_study(args.study)
    rows, missing = plan(expand(study, name), load_card(study.hardware, args.cards))
    write_csv(args.output, rows)
    sys.stdout.write(summary(name, rows, missing) + "\n")


if __name__ == "__main__":
    call(main)
