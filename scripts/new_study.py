"""Make a study to begin with, from the example of its system, and a test of it."""

import argparse
import sys
from pathlib import Path

from ablation.cli import call
from ablation.scaffold import new_study

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write the files and say what to do with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="what the study is to be called")
    parser.add_argument("--system", required=True, help="its model family, such as vggt")
    args = parser.parse_args()
    for path in new_study(args.name, args.system, ROOT):
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    sys.stdout.write(f"what will run: snakemake plan -c2 --config studies={args.name} scale=demo\n")


if __name__ == "__main__":
    call(main)
