"""Compute once what a frozen part of the network makes of the inputs that several runs use. Results do not depend on it.

Where the study allows no disk for it, or no input is used twice, the cache that is made holds nothing.
"""

import argparse
from pathlib import Path

from ablation import seal
from ablation.cli import add_job_arguments, call
from ablation.device import choose_device
from ablation.errors import UserError
from ablation.files import replace_folder
from ablation.gpus import lease_gpus
from ablation.manifest import settings_hash
from ablation.resolved import runs_of
from ablation.sweep import Run
from ablation.yamlfile import load_yaml


def make(runs: list[Run], args: argparse.Namespace, folder: Path) -> None:
    """Fill ``folder`` for ``runs``."""
    import torch

    from ablation.prefix.cache import Filling
    from ablation.prefix.fill import fill
    from ablation.prefix.identity import identity_of
    from ablation.training.randomness import make_deterministic

    torch.set_num_threads(args.threads)
    make_deterministic()
    device = choose_device(args.device, runs[0].settings.scale)
    weights = dict(args.weights)
    filling = Filling(folder, int(runs[0].settings.compute.prefix_cache_gib * 2**30))
    untrained = [run for run in runs if args.runs is None or not is_trained(run, args.runs / run.id)]
    fill(runs, untrained, weights, args.data, filling, device)
    filling.close(identity_of(runs[0], weights, args.hashes, device))


def is_trained(run: Run, folder: Path) -> bool:
    """Whether ``folder`` holds the result of just this run."""
    try:
        same = settings_hash(load_yaml(folder / "run.yaml")) == settings_hash(run.training_view)
    except (OSError, UserError):
        return False
    return same and (folder / "training.json").is_file()


def main() -> None:
    """The runs of a study that share a prefix, their draws, and the outputs of these."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--prefix", required=True, help="which frozen part: the prefix of some runs of the study")
    add_job_arguments(parser)
    parser.add_argument("--runs", type=Path, help="folder of the runs' folders: what is trained there is not trained again")
    parser.add_argument("--hashes", type=Path, required=True, help="folder that remembers the hashes of weights")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the cache")
    args = parser.parse_args()
    runs = [run for run in runs_of(args.study) if run.prefix == args.prefix]
    if not runs:
        raise UserError(f"{args.study}: no run of the study has the prefix {args.prefix}; was the study changed meanwhile?")
    with replace_folder(args.output) as folder:
        if runs[0].settings.compute.prefix_cache_gib:
            seal.check(args.data)
            with lease_gpus(1):
                make(runs, args, folder)


if __name__ == "__main__":
    call(main)
