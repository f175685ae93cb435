"""Make a system to begin with: a small network that runs, to be replaced by yours; its study, its test, and the schemas."""

import argparse
import subprocess
import sys
from pathlib import Path

from ablation.cli import call
from ablation.scaffold import new_system

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write the files, then the schemas, by a program that knows the new system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="what the system is to be called, such as toy")
    args = parser.parse_args()
    for path in new_system(args.name, ROOT):
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    subprocess.run([sys.executable, str(ROOT / "scripts/write_schemas.py")], check=True)
    sys.stdout.write("config/schemas/study.json\ndocs/settings.md\n")
    sys.stdout.write(f"run it: snakemake --profile local --config studies={args.name} scale=demo\n")


if __name__ == "__main__":
    call(main)
