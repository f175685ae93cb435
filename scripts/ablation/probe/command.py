"""What the programs that probe share: their arguments, and where their jobs run."""

import logging
import signal
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from ablation import nvml
from ablation.cli import json_or_file, log_to
from ablation.device import choose_device
from ablation.gpus import visible_gpus
from ablation.probe.jobs import Send, run_locally
from ablation.probe.prober import Prober
from ablation.settings import Scale


def add_probe_arguments(parser: ArgumentParser) -> None:
    """A study, the places of its files, and the cluster."""
    parser.add_argument("--study", type=Path, required=True, help="study.json")
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the records, a file a cell")
    parser.add_argument("--logs", type=Path, required=True, help="folder of the jobs' logs")
    parser.add_argument("--cluster", type=json_or_file, nargs="?", help="SLURM: the jobs' resources, JSON; none: this machine")
    parser.add_argument("--log", type=Path, required=True, help="this program's log")
    parser.add_argument("--output", type=Path, required=True, help="the table, CSV")


def prober_of(args: Namespace, scale: Scale) -> tuple[Prober, str]:
    """The prober of these arguments, and what is known of the device it measures on."""
    log_to(args.log)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that jobs are not left behind
    send, device = _place(args, scale)
    logging.info("probing on %s", device)
    return Prober(args.study, args.cards, args.folder, send), device


def _place(args: Namespace, scale: Scale) -> tuple[Send, str]:
    if args.cluster is not None:
        from ablation.probe.slurm import run_on_slurm

        asked = args.cluster.get("gpu_model") or args.cluster.get("gres") or "slurm"
        return partial(run_on_slurm, logs=args.logs, cluster=args.cluster), asked
    gpus = visible_gpus() if choose_device("auto", scale).type == "cuda" else []
    names = sorted({nvml.gpu_name(nvml.uuid_of(gpu)) or "cuda" for gpu in gpus})
    return partial(run_locally, logs=args.logs, at_a_time=len(gpus) or 1), ", ".join(names) or "cpu"
