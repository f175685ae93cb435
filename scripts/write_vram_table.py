"""Write docs/vram-records.md, the table of predicted against measured memory, from all records."""

import argparse
from pathlib import Path

from ablation.cli import call
from ablation.files import write_text
from ablation.vram.records import read_records
from ablation.vram.records_page import page

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks/records"
PAGE = "docs/vram-records.md"


def main() -> None:
    """Write the page below ``--root``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    args = parser.parse_args()
    write_text(args.root / PAGE, page(read_records(RECORDS)))


if __name__ == "__main__":
    call(main)
