"""Train one run. Whatever its outcome (completed, oom, diverged), the outcome is written and the exit status is 0."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.cli import add_job_arguments, call, log_to
from ablation.device import choose_device
from ablation.files import write_json, write_text
from ablation.gpus import lease_gpus
from ablation.hardware import load_card
from ablation.locks import lease_folder
from ablation.resolved import load_run
from ablation.sweep import Run
from ablation.yamlfile import dump_yaml

if TYPE_CHECKING:
    import torch

    from ablation.vram.measure import Meter

SCHEMA = 2


def train(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Train ``run`` in ``args.folder``; returns the content of ``training.json``."""
    import torch

    from ablation.provenance import manifest
    from ablation.training.randomness import make_deterministic
    from ablation.vram.budget import hold_to_card
    from ablation.vram.measure import make_meter

    torch.set_num_threads(args.threads)
    make_deterministic()
    device = choose_device(args.device, run.settings.scale)
    hardware = run.settings.hardware
    budget = hold_to_card(hardware, load_card(hardware, args.cards), device)
    logging.info("budget: %s", budget)
    write_json(args.folder / "manifest.json", manifest(str(device)))
    found = attempt(run, args, device, make_meter(device, budget))
    return {"schema": SCHEMA, "run": run.id, "device": device.type, **found}


def attempt(run: Run, args: argparse.Namespace, device: "torch.device", meter: "Meter") -> dict[str, Any]:
    """Train to the end, to a diagnosis, or until the memory is full; returns the outcome and what was measured."""
    from ablation.systems import load_system
    from ablation.training.trainer import Trainer
    from ablation.vram.oom import is_out_of_memory, out_of_memory, release_memory

    trainer, failure = None, None
    try:
        trainer = Trainer(run, load_system(run.settings), dict(args.weights), args.data, args.folder, device, meter)
        outcome = trainer.train()
        found = {"outcome": outcome, **trainer.record()}
        if outcome == "completed":
            found["saved"] = trainer.finish()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        failure = out_of_memory(error, meter, trainer.step if trainer else None)
    if failure is not None:
        # Only here: the error's traceback is gone, and with it what its frames kept allocated.
        release_memory(device)
        logging.warning("out of memory: %s", failure["message"])
        found = {"outcome": "oom", **(trainer.record() if trainer else {"memory": meter.report()}), "oom": failure}
    if trainer is None:
        write_text(args.folder / "history.csv", "")
    else:
        trainer.history.save_as(args.folder / "history.csv")
    return found


def main() -> None:
    """Lease the folder, and a GPU where there is one; train, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="study.json; without it, --run is the path of a run.yaml")
    parser.add_argument("--run", required=True, help="the run's id in the study, or a run.yaml")
    parser.add_argument("--fingerprint", help="refuse the run if the study was changed since")
    add_job_arguments(parser)
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
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
