"""Write the JSON schemas of the configuration files and the reference page of all settings."""

import argparse
from pathlib import Path

from ablation import schema
from ablation.cli import call
from ablation.files import write_text

ROOT = Path(__file__).parent.parent
FILES = {
    "config/schemas/recommended.json": lambda: schema.as_json(schema.recommended_schema()),
    "config/schemas/study.json": lambda: schema.as_json(schema.study_schema()),
    "config/schemas/card.json": lambda: schema.as_json(schema.card_schema()),
    "config/schemas/claims.json": lambda: schema.as_json(schema.claims_schema()),
    "docs/settings.md": schema.reference_page,
}


def main() -> None:
    """Write every generated file below ``--root``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    args = parser.parse_args()
    for name, content in FILES.items():
        write_text(args.root / name, content())


if __name__ == "__main__":
    call(main)
