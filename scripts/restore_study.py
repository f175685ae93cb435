"""Bring an archived study back: check every file, make its report again from the collected runs, put it where it was.

Exit status 2, naming the file, where the archive was changed, or where its report is not what its runs give.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ablation.archive.contents import STUDY
from ablation.archive.stage import place_of
from ablation.archive.unpack import put, rebuilt, unpacked
from ablation.cli import call
from ablation.errors import UserError


def main() -> None:
    """Unpack beside the results, check, rebuild, move."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="what archive_study.py wrote")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder of all results")
    args = parser.parse_args()
    bar = tqdm(unit="B", unit_scale=True, desc=args.archive.name, disable=None)
    with bar, unpacked(args.archive, args.results, bar.update) as folder:
        different = rebuilt(folder)
        target = place_of(args.results, folder / STUDY)
        put(folder, target)
    if different:
        raise UserError(
            f"{target}: restored, but its report comes out otherwise ({', '.join(different[:5])}): it is not of these runs, was"
            f" drawn by other versions of the packages, or is of an objective that was corrected since; what was made now is in"
            f" {target / 'rebuilt'}"
        )
    sys.stdout.write(f"restored: {target}\nreport, made again and equal: {target / 'report.html'}\n")


if __name__ == "__main__":
    call(main)
