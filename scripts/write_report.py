"""Write the report of a study: one self-contained HTML page."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from ablation.cli import call
from ablation.files import write_text
from ablation.report.page import report_page
from ablation.report.results import Results
from ablation.resolved import load_study


def main() -> None:
    """Read the collected runs, write the page, say where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--folder", type=Path, required=True, help="the study's folder, which holds runs.parquet and runs/")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    name, study = load_study(args.study)
    results = Results(study, pd.read_parquet(args.folder / "runs.parquet"))
    write_text(args.output, report_page(results, name, args.folder))
    sys.stdout.write(f"report: {args.output}\n")


if __name__ == "__main__":
    call(main)
