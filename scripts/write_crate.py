"""Write a finished study as an RO-Crate: a folder with its results and what each of them is (Workflow Run Crate 0.5)."""

import argparse
import sys
from pathlib import Path

from ablation.archive.crate import UNSTATED, Told
from ablation.archive.pack import copy_out
from ablation.archive.whole import described
from ablation.cli import call
from ablation.files import replace_folder


def main() -> None:
    """Stage, describe, copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the study's folder, such as results/demo/vggt-eth3d")
    parser.add_argument("--output", type=Path, required=True, help="the crate's folder, which is replaced")
    parser.add_argument(
        "--licence", default=UNSTATED, help="of the results: a URL, such as https://spdx.org/licenses/CC-BY-4.0"
    )
    parser.add_argument("--author", help="who answers for the results; by default nobody is named")
    args = parser.parse_args()
    with described(args.folder, Told(args.licence, args.author)) as (folder, _), replace_folder(args.output) as target:
        copy_out(folder, target)
    sys.stdout.write(f"crate: {args.output}\n")


if __name__ == "__main__":
    call(main)
