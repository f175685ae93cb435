"""Compare a study with the configuration that is recommended, parameter by parameter, with advice for a card.

    python scripts/compare_config.py --study vggt-eth3d [--card l40s] [--config 'training={warmup: 0.05}' recommended=vggt]

Prints the parameters that differ and what to write. Memory is predicted, without a GPU, weights or data.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ablation import resolved
from ablation.cli import call
from ablation.comparison import OnCard, as_text, compare
from ablation.errors import UserError
from ablation.files import write_csv
from ablation.hardware import Card, load_card
from ablation.recommended import Recommended, recommended_for
from ablation.study import Study, load_study, study_file
from ablation.sweep import Run, expand
from ablation.waiting import say
from ablation.yamlfile import parse_yaml

ROOT = Path()  # of whoever runs it; what the workflow brings is known as well


def setting(text: str) -> tuple[str, Any]:
    """``key=value``, the value as YAML, as Snakemake's --config takes it."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, parse_yaml(value)


def study_of(text: str, overrides: dict[str, Any]) -> tuple[str, Study]:
    """Name and study: of a name, a YAML file, both at full scale unless ``overrides`` say else, or a resolved study.json."""
    if text.endswith(".json"):
        return resolved.load_study(Path(text))
    path = study_file(text, ROOT / "config/studies")
    return path.stem, load_study(path, {"scale": "full", **overrides})


def advisor(name: str, study: Study, runs: list[Run], recommended: Recommended, card: Card) -> OnCard:
    """What the card has to say; of a demo nothing, and the predictor, which takes seconds to import, is left alone."""
    if study.scale == "demo":
        return lambda _: ("what fits the card, a plan at full scale says", {})
    say(f"{name} on {card.name}: predicting the memory of the recommended effective batch")
    from ablation.ways import Advisor

    results = ROOT / "results"
    return Advisor(study, runs, recommended, card, results / "traces", results / study.scale / name / "probe.csv")


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, help="a name in config/studies, a YAML file, or a study.json of results")
    parser.add_argument("--card", help="a card of config/hardware, such as rtx4090 (the study's)")
    parser.add_argument(
        "--config", type=setting, nargs="*", default=[], metavar="KEY=VALUE", help="laid over a study of YAML (scale=full)"
    )
    parser.add_argument("--output", type=Path, help="write all parameters there, as CSV")
    args = parser.parse_args()
    name, study = study_of(args.study, dict(args.config))
    recommended = recommended_for(study, ROOT / "config/recommended")
    if recommended is None:
        raise UserError(
            f"{name} names no recommended configuration; add --config recommended=NAME, a file of config/recommended"
        )
    runs, card = expand(study, name), load_card(args.card or study.hardware, ROOT / "config/hardware")
    rows = compare(study, runs, recommended, card, advisor(name, study, runs, recommended, card))
    if args.output:
        write_csv(args.output, [row.as_record(recommended) for row in rows])
    sys.stdout.write(f"{as_text(rows, str(study.recommended), recommended, study.scale)}\n")


if __name__ == "__main__":
    call(main)
