"""Train one run. Whatever its outcome (completed, oom, diverged), the outcome is written and the exit status is 0."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.cli import add_job_arguments, call, log_to
from ablation.device import choose_device
from ablation.errors import UserError
from ablation.files import write_json, write_text
from ablation.gpus import lease_gpus
from ablation.hardware import load_card
from ablation.locks import lease_folder
from ablation.resolved import load_run
from ablation.sweep import Run
from ablation.training.processes import place, start
from ablation.yamlfile import dump_yaml

if TYPE_CHECKING:
    import torch

    from ablation.vram.measure import Meter

SCHEMA = 2
OOM_STATUS = 75  # of one process of several that ran out of memory: the others must not wait for it


def train(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Train ``run`` in ``args.folder``; returns the content of ``training.json``."""
    import torch

    from ablation.provenance import manifest
    from ablation.training.randomness import make_deterministic
    from ablation.vram.budget import hold_to_card
    from ablation.vram.measure import make_meter

    torch.set_num_threads(max(1, args.threads // place().count))
    make_deterministic()
    device = choose_device(args.device, run.settings.scale)
    if device.type == "cuda" and place().count > 1:
        device = torch.device("cuda", place().rank)
        torch.cuda.set_device(device)
    hardware = run.settings.hardware
    budget = hold_to_card(hardware, load_card(hardware, args.cards), device)
    logging.info("budget: %s", budget)
    if place().first:
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
        if outcome == "completed" and place().first:
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
    return found


def train_here(run: Run, args: argparse.Namespace) -> None:
    """Train in this process and write the record. Of several, the first writes it, or the one that runs out of memory."""
    if place().first:
        log_to(args.folder / "trainer.log")
    else:
        logging.getLogger().setLevel(logging.WARNING)
    found = train(run, args)
    if place().first or found["outcome"] == "oom":
        write_json(args.folder / "training.json", found)
    if place().count > 1 and found["outcome"] == "oom":
        os._exit(OOM_STATUS)  # without a word to the others, who wait in a collective operation


def train_in_processes(run: Run, args: argparse.Namespace) -> None:
    """Train in a process a GPU. One that runs out of memory has written so, which is a result."""
    record = args.folder / "training.json"
    record.unlink(missing_ok=True)
    if not start(sys.argv, run.axes["gpus"]) and not record.is_file():
        raise UserError(f"a process of {run.axes['gpus']} failed; its error stands above")


def keep_history(folder: Path) -> None:
    """Put the history of what was trained where the workflow looks for it; empty where no step was taken."""
    trained = "steps" in json.loads((folder / "training.json").read_text())
    write_text(folder / "history.csv", (folder / "state" / "history.csv").read_text() if trained else "")


def main() -> None:
    """Lease the folder, and GPUs where there are some; train, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="study.json; without it, --run is the path of a run.yaml")
    parser.add_argument("--run", required=True, help="the run's id in the study, or a run.yaml")
    parser.add_argument("--fingerprint", help="refuse the run if the study was changed since")
    add_job_arguments(parser)
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--folder", type=Path, required=True, help="the run's folder")
    args = parser.parse_args()
    run = load_run(args.study, args.run, args.fingerprint)
    if place().count > 1:  # one of several, whose parent holds the leases
        train_here(run, args)
        return
    with lease_folder(args.folder), lease_gpus(run.axes["gpus"]) as gpus:
        logging.info("run %s on %s", run.id, ", ".join(gpus) or "the CPU")
        write_text(args.folder / "run.yaml", dump_yaml(run.training_view))
        (train_here if run.axes["gpus"] == 1 else train_in_processes)(run, args)
        keep_history(args.folder)


if __name__ == "__main__":
    call(main)
