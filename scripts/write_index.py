"""Write the index over all studies that have a report: one self-contained HTML page."""

import argparse
import sys
from pathlib import Path

from ablation.cli import call
from ablation.files import write_text
from ablation.report.index import index_page, studies_of


def main() -> None:
    """Look through the tree of results, write the page, say where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder that holds demo/ and full/")
    args = parser.parse_args()
    output = args.results / "index.html"  # its links are relative to there
    write_text(output, index_page(studies_of(args.results)))
    sys.stdout.write(f"index: {output}\n")


if __name__ == "__main__":
    call(main)
