"""Compare a study with the recommended configuration, parameter by parameter, with advice for a card.

    python scripts/compare_config.py vggt-eth3d [--gpu l40s] [--config 'training={warmup: 0.05}']

Prints the parameters that differ and what to write. Memory is predicted, without a GPU, weights or data.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from ablation.cli import call
from ablation.comparison import as_text, compare
from ablation.errors import UserError
from ablation.hardware import load_card
from ablation.recommended import recommended_for
from ablation.settings import Scale
from ablation.study import load_study, study_file
from ablation.sweep import expand
from ablation.ways import Advisor
from ablation.yamlfile import parse_yaml

ROOT = Path(__file__).parent.parent


def setting(text: str) -> tuple[str, Any]:
    """``key=value``, the value as YAML, as Snakemake's --config takes it."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, parse_yaml(value)


def main() -> None:
    """Compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a name in config/studies, or a file")
    parser.add_argument("--gpu", help="a card of config/hardware, such as rtx4090 (the study's)")
    parser.add_argument("--scale", choices=get_args(Scale), default="full", help="full, the released size, or demo")
    parser.add_argument("--config", type=setting, nargs="*", default=[], metavar="KEY=VALUE", help="laid over the study")
    args = parser.parse_args()
    path = study_file(args.study, ROOT / "config/studies")
    overrides = {**dict(args.config), "scale": args.scale, **({"hardware": args.gpu} if args.gpu else {})}
    study = load_study(path, overrides)
    recommended = recommended_for(study, ROOT / "config/recommended")
    if recommended is None:
        raise UserError(
            f"{path}: names no recommended configuration; add --config recommended=NAME, a file of config/recommended"
        )
    runs, card = expand(study, path.stem), load_card(study.hardware, ROOT / "config/hardware")
    advisor = Advisor(
        study, runs, recommended, card, ROOT / "results/traces", ROOT / f"results/{study.scale}/{path.stem}/probe.csv"
    )
    rows = compare(study, runs, recommended, card, advisor)
    sys.stdout.write(f"{as_text(rows, str(study.recommended), recommended, study.scale)}\n")


if __name__ == "__main__":
    call(main)
