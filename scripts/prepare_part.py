"""Make one part of a study's prepared data."""

import argparse
from pathlib import Path

from ablation.cli import call, json_or_file
from ablation.files import replace_folder
from ablation.gpus import lease_gpus
from ablation.parts import Part
from ablation.seal import seal, seal_needs
from ablation.systems import prepare


def main() -> None:
    """Read the part's description, make it, seal it, put it in place whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", required=True)
    parser.add_argument("--part", type=json_or_file, required=True, help="stage, name and settings, as JSON or a file")
    parser.add_argument("--needs", type=Path, nargs="*", default=[], help="folders of the parts it is made from")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs to hold meanwhile")
    parser.add_argument("--resume", action="store_true", help="go on from what an interrupted making left")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    part = Part(args.part["stage"], args.part["name"], args.part["settings"])
    with lease_gpus(args.gpus), replace_folder(args.output, args.resume) as folder:
        prepare(args.system, part, args.needs, folder)
        seal(folder)
        seal_needs(folder, args.needs)


if __name__ == "__main__":
    call(main)
