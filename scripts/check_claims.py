"""Hold a study's published claims against its plan, or against its finished runs: confirmed, refuted, or not comparable."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ablation.claims.of_study import claims_of
from ablation.claims.table import claim_table, summary
from ablation.claims.verdicts import Judge
from ablation.cli import call
from ablation.files import write_csv
from ablation.hardware import load_cards
from ablation.objective import marked
from ablation.resolved import load_study
from ablation.sweep import expand


def read(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file as a table; an empty one of a file that holds nothing."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path) if path.stat().st_size > 1 else pd.DataFrame()


def history(folder: Path, run: str) -> Sequence[dict[str, Any]]:
    """The optimizer steps of a run."""
    path = folder / "runs" / run / "history.csv"
    return read(path).to_dict("records") if path.is_file() else []


def main() -> None:
    """Read, judge, write, summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--claims", type=Path, required=True, help="folder of the files of claims")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--table", type=Path, required=True, help="plan.csv, or runs.parquet once there are runs")
    parser.add_argument("--on-cards", type=Path, required=True, help="cards.csv")
    parser.add_argument("--output", type=Path, required=True, help="in the study's folder, which holds runs/")
    args = parser.parse_args()
    name, study = load_study(args.study)
    judge = Judge(
        study,
        expand(study, name),
        {row["run"]: row for row in marked(study, read(args.table)).to_dict("records")},
        {(row["cell"], row["card"]): row for row in read(args.on_cards).to_dict("records")},
        load_cards(args.cards),
        lambda run: history(args.output.parent, run),
    )
    found = claim_table(claims_of(study, args.claims, args.cards), judge)
    write_csv(args.output, found)
    sys.stdout.write(summary(name, found) + "\n")


if __name__ == "__main__":
    call(main)
