"""Print the verdicts on published claims of several studies in one table."""

import argparse
import csv
import sys
from pathlib import Path

from ablation.claims.overview import overview
from ablation.cli import call
from ablation.outside import MIB, read_text


def main() -> None:
    """Read and print; a study is named by the folder of its file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", help="claims.csv or plan_claims.csv of each study, in its folder")
    studies = {}
    for path in parser.parse_args().files:
        studies[path.parent.name] = list(csv.DictReader(read_text(path, MIB).splitlines()))
    sys.stdout.write(overview(studies) + "\n")


if __name__ == "__main__":
    call(main)
