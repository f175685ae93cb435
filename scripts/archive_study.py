"""Pack a finished study into one file: report, tables, manifests, what was trained, an RO-Crate's metadata, checksums.

The same study gives the same bytes. Paths outside the project are replaced; checkpoints and logs stay behind.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ablation.archive.contents import STUDY, name_and_scale
from ablation.archive.crate import UNSTATED, Told
from ablation.archive.pack import files_of, pack
from ablation.archive.whole import described
from ablation.cli import call


def main() -> None:
    """Stage, describe, pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the study's folder, such as results/demo/vggt-eth3d")
    parser.add_argument("--output", type=Path, help="the archive; by default results/archives/<study>-<scale>.tar.gz")
    parser.add_argument(
        "--licence", default=UNSTATED, help="of the results: a URL, such as https://spdx.org/licenses/CC-BY-4.0"
    )
    parser.add_argument("--author", help="who answers for the results; by default nobody is named")
    args = parser.parse_args()
    with described(args.folder, Told(args.licence, args.author)) as (folder, when):
        top = "-".join(name_and_scale(folder / STUDY))
        output = args.output or Path("results/archives") / f"{top}.tar.gz"
        total = sum(path.stat().st_size for path in files_of(folder).values())
        with tqdm(total=total, unit="B", unit_scale=True, desc=top, disable=None) as bar:
            pack(folder, output, top, when, bar.update)
    sys.stdout.write(f"archive: {output} ({output.stat().st_size / 2**20:.1f} MiB)\n")


if __name__ == "__main__":
    call(main)
