"""Evaluate what a run trained, and put its whole result in one file: outcome, metrics before and after, memory, time.

Beside what was trained it writes the model's card.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ablation import seal
from ablation.cli import add_job_arguments, call, json_or_file
from ablation.device import choose_device
from ablation.files import write_json
from ablation.gpus import lease_gpus
from ablation.resolved import load_run
from ablation.sweep import Run


def metrics(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Evaluation of a completed run; nothing for any other outcome."""
    if args.training["outcome"] != "completed":
        return {"metrics": {}, "items": [], "notes": {}}
    seal.check(args.data)
    with lease_gpus(1):
        import torch

        from ablation.evaluation import evaluate
        from ablation.systems import load_system

        torch.set_num_threads(args.threads)
        device = choose_device(args.device, run.settings.scale)
        folder = args.output.parent
        system = load_system(run.settings)
        frozen = run.strategy.frozen_weights
        return evaluate(system, run.axes["precision"], dict(args.weights), folder, args.data, folder / "pictures", device, frozen)


def main() -> None:
    """Evaluate a run's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="study.json; without it, --run is the path of a run.yaml")
    parser.add_argument("--run", required=True, help="the run's id in the study, or a run.yaml")
    parser.add_argument("--training", type=json_or_file, required=True, help="training.json")
    parser.add_argument("--base", type=Path, required=True, help="metrics.json of the pretrained model")
    add_job_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="metrics.json in the run's folder")
    args = parser.parse_args()
    run = load_run(args.study, args.run)
    base = json.loads(args.base.read_text())
    before = {"metrics_before": base["metrics"], "items_before": base["items"]}
    record = {**args.training, "axes": run.axes, **metrics(run, args), **before}
    from ablation.hparams import write_hparams  # imports torch, which waits for the lease of a GPU
    from ablation.modelcard import write_card

    folder, manifest = args.output.parent, args.output.parent / "manifest.json"
    write_hparams(folder / "tensorboard", run.id, run.axes, run.settings.metrics(), record)
    write_card(run, folder, record, json.loads(manifest.read_text()) if manifest.is_file() else {})
    write_json(args.output, record)


if __name__ == "__main__":
    call(main)
