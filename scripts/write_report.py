"""Write the report of a study: a self-contained page, a PDF, and its tables and figures as files."""

import argparse
import sys
from pathlib import Path

from ablation.cli import call
from ablation.report.writing import write_report


def main() -> None:
    """Read the collected runs, write all forms of the report, say where the page is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--folder", type=Path, required=True, help="the study's folder, with runs.parquet")
    args = parser.parse_args()
    write_report(args.study, args.folder, args.folder)
    sys.stdout.write(f"report: {args.folder / 'report.html'}\n")


if __name__ == "__main__":
    call(main)
