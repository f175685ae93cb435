"""Evaluate the pretrained model, before any fine-tuning."""

import argparse
from pathlib import Path

from ablation import seal
from ablation.cli import add_job_arguments, add_prefix_arguments, call
from ablation.device import choose_device
from ablation.errors import UserError
from ablation.files import write_json
from ablation.formats import KEY, SCHEMA
from ablation.gpus import lease_gpus
from ablation.manifest import inputs_of
from ablation.resolved import runs_of


def main() -> None:
    """Load the pretrained weights, evaluate, write metrics and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--base", required=True, help="which evaluation: the base of some run of the study")
    add_job_arguments(parser)
    add_prefix_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="metrics.json; pictures go beside it")
    args = parser.parse_args()
    run = next((run for run in runs_of(args.study) if run.base == args.base), None)
    if run is None:
        raise UserError(f"{args.study}: no run of the study starts from {args.base}; was the study changed meanwhile?")
    seal.check(args.data)
    with lease_gpus(1):
        import torch

        from ablation.evaluation import evaluate
        from ablation.prefix.identity import system_for

        torch.set_num_threads(args.threads)
        device = choose_device(args.device, run.settings.scale)
        pictures = args.output.parent / "pictures"
        weights = dict(args.weights)
        system = system_for(run, args.prefixes, weights, args.hashes, device, trained=False)
        found = evaluate(system, run.axes["precision"], weights, None, args.data, pictures, device)
    inputs = inputs_of(weights, args.data, args.hashes)
    write_json(args.output, {KEY: SCHEMA, "precision": run.axes["precision"], "inputs": inputs, **found})


if __name__ == "__main__":
    call(main)
