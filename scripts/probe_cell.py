"""Probe one cell: a few optimizer steps on random data. Its outcome, completed or oom, is written and the exit status is 0."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ablation.cli import call
from ablation.device import choose_device
from ablation.errors import UserError
from ablation.files import write_json
from ablation.formats import KEY, SCHEMA
from ablation.gpus import lease_gpus
from ablation.hardware import load_card
from ablation.neighbours import AGAIN, CardShared
from ablation.probe.cell import STEPS, at_batch
from ablation.resolved import fingerprint_of, load_run
from ablation.sweep import Run


def run_cell(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Probe ``run`` on this machine's device; returns the content of the record."""
    import torch

    from ablation.probe.measure import measure
    from ablation.systems import load_system
    from ablation.training.randomness import make_deterministic
    from ablation.vram.budget import hold_to_card
    from ablation.vram.predict import Predictor

    torch.set_num_threads(args.threads)
    make_deterministic()
    device = choose_device(args.device, run.settings.scale)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    hardware = run.settings.hardware
    card = load_card(hardware, args.cards)
    budget = hold_to_card(hardware, card, device)
    found = measure(Predictor([run], card).settled(run), load_system(run.settings), device, args.steps, budget)
    return {KEY: SCHEMA, "axes": run.cell, "steps": args.steps, "device": {"type": device.type, "name": name}, **found}


def main() -> None:
    """Lease a GPU where there is one, probe, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="study.json; without it, --run is the path of a run.yaml")
    parser.add_argument("--run", required=True, help="the id of a run of the cell, or a run.yaml")
    parser.add_argument("--fingerprint", help="refuse the cell if the study was changed since")
    parser.add_argument("--batch", type=int, help="samples a forward pass, instead of the run's")
    parser.add_argument("--accumulation", type=int, help="forward passes a step, instead of the run's")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--output", type=Path, required=True, help="the record, JSON")
    parser.add_argument(AGAIN, action="store_true", help="what runs beside it has disturbed it once")
    args = parser.parse_args()
    run = load_run(args.study, args.run)
    run = at_batch(run, args.batch or run.axes["batch"], args.accumulation or run.axes["accumulation"])
    if args.fingerprint not in (None, fingerprint_of(run)):
        raise UserError(f"{args.study}: the study changed while this probe was waiting")
    try:
        with lease_gpus(run.axes["gpus"]):
            write_json(args.output, run_cell(run, args))
    except CardShared as error:
        if args.again:
            raise
        logging.warning("%s: once more", error)
        error.neighbours.wait()
        os.execv(sys.executable, [sys.executable, *sys.argv, AGAIN])


if __name__ == "__main__":
    call(main)
