"""Collect the results of a study's runs in one table."""

import argparse
from pathlib import Path

from ablation.cli import call
from ablation.collect import collect, flat_columns
from ablation.errors import UserError
from ablation.files import write_bytes, write_text


def main() -> None:
    """Collect and write as Parquet and CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="the study's folder, which holds runs/")
    parser.add_argument("--submitted", nargs="+", required=True, help="verdicts of the plan whose runs were submitted")
    parser.add_argument("--parquet", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    args = parser.parse_args()
    table = collect(args.plan, args.folder / "runs", args.submitted)
    if table["outcome"].isin(["invalid", "not run"]).all():
        reasons = "\n".join(f"  {count} run(s): {reason}" for reason, count in table["reason"].value_counts().items())
        raise UserError(f"none of the {len(table)} runs could be submitted:\n{reasons}\n  details: {args.plan}")
    write_bytes(args.parquet, table.to_parquet(index=False))
    write_text(args.csv, flat_columns(table).to_csv(index=False))


if __name__ == "__main__":
    call(main)
