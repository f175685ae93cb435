"""Train one run. Whatever its outcome (completed, oom, diverged), the outcome is written and the exit status is 0."""

import argparse
import logging
from pathlib import Path
from typing import Any

from ablation.cli import add_job_arguments, call, log_to
from ablation.device import choose_device
from ablation.files import write_json, write_text
from ablation.gpus import lease_gpus
from ablation.locks import lease_folder
from ablation.resolved import load_run
from ablation.sweep import Run
from ablation.yamlfile import dump_yaml

SCHEMA = 1


def train(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Train ``run`` in ``args.folder``; returns the content of ``training.json``."""
    import torch

    from ablation.provenance import manifest
    from ablation.systems import load_system
    from ablation.training.randomness import make_deterministic
    from ablation.training.trainer import Trainer

    torch.set_num_threads(args.threads)
    make_deterministic()
    device = choose_device(args.device, run.settings.scale)
    write_json(args.folder / "manifest.json", manifest(str(device)))
    out_of_memory, found = None, {}
    try:
        trainer = Trainer(run, load_system(run.settings), dict(args.weights), args.data, args.folder, device)
        outcome = trainer.train()
        found = trainer.record()
        if outcome == "completed":
            found["saved"] = trainer.finish()
        trainer.history.save_as(args.folder / "history.csv")
    except torch.OutOfMemoryError as error:
        outcome, out_of_memory = "oom", str(error).splitlines()[0]
    if out_of_memory is not None:
        logging.warning("out of memory: %s", out_of_memory)
        found = {"oom": out_of_memory}
        write_text(args.folder / "history.csv", "")
    return {"schema": SCHEMA, "run": run.id, "outcome": outcome, "device": device.type, **found}


def main() -> None:
    """Lease the folder, and a GPU where there is one; train, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="study.json; without it, --run is the path of a run.yaml")
    parser.add_argument("--run", required=True, help="the run's id in the study, or a run.yaml")
    parser.add_argument("--fingerprint", help="refuse the run if the study was changed since")
    add_job_arguments(parser)
    parser.add_argument("--folder", type=Path, required=True, help="the run's folder")
    args = parser.parse_args()
    run = load_run(args.study, args.run, args.fingerprint)
    with lease_folder(args.folder), lease_gpus(run.axes["gpus"]) as gpus:
        log_to(args.folder / "trainer.log")
        logging.info("run %s on %s", run.id, ", ".join(gpus) or "the CPU")
        write_text(args.folder / "run.yaml", dump_yaml(run.training_view))
        write_json(args.folder / "training.json", train(run, args))


if __name__ == "__main__":
    call(main)
