"""A study of one training under several names: each name meets another fault, and all must end like the one that met none."""

import csv
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

from ablation.attempts import Journal
from ablation.study import load_study
from ablation.sweep import expand
from ablation.yamlfile import parse_yaml

STEPS, EVERY = 100, 10
TRAINS = "{train: {lora: [depth_head.projects, depth_head.scratch]}, lr: 2e-3}"


def config(names: list[str]) -> list[str]:
    """The study for Snakemake's --config; small, and its training takes a few seconds."""
    return [
        "studies=vggt-eth3d",
        "scale=demo",
        "data={scenes: [library], split: {by: image, train: 0.7, test: []}, frames: 2, resolution: [42, 56]}",
        f"training={{steps: {STEPS}, checkpoint_every: {EVERY}}}",
        "evaluation={pictures: 0}",
        f"strategies={{{', '.join(f'{name}: {TRAINS}' for name in names)}}}",
        f"sweep={{strategy: [{', '.join(names)}], rank: 4, batch: 1, seed: 0}}",
        f"baseline={{strategy: {names[0]}, rank: 4}}",
    ]


class Run:
    """A run of the study in ``project``: what its files say."""

    def __init__(self, project: Path, study: str, name: str):
        self.project, self.id = project, name
        self.target = f"results/demo/{study}/runs/{name}/metrics.json"
        self.folder = (project / self.target).parent
        self.state = self.folder / "state"
        self.log = project / f"results/demo/{study}/logs/train/{name}.log"

    def result(self) -> dict[str, Any]:
        """All that must not differ between two runs of the same training."""
        evaluated = json.loads((self.folder / "metrics.json").read_text())
        rows = [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader((self.folder / "history.csv").open())
        ]
        weights = (self.folder / "adapter/adapter_model.safetensors").read_bytes()
        return {name: evaluated[name] for name in ("outcome", "metrics", "items")} | {"history": rows, "weights": weights}

    def events(self) -> list[dict[str, Any]]:
        """The journal of the attempts."""
        return Journal(self.folder).events()

    def repeated(self) -> int:
        """Optimizer steps that were taken twice."""
        return json.loads((self.folder / "training.json").read_text())["attempts"]["repeated_steps"]

    def attempts(self) -> int:
        """Attempts that have begun."""
        return sum(event["event"] == "start" for event in self.events())

    def steps(self) -> int:
        """Steps of the history so far."""
        try:
            return max(0, (self.state / "history.csv").read_text().count("\n") - 1)
        except FileNotFoundError:
            return 0

    def in_its_middle(self, attempts: int = 1) -> dict[str, Any] | None:
        """The start of the attempt that is under way, once it trains well beyond a checkpoint."""
        starts = [event for event in self.events() if event["event"] == "start"]
        begun = len(starts) == attempts and self.events()[-1]["event"] == "train"
        return starts[-1] if begun and self.steps() > self.events()[-1]["step"] + EVERY + 5 else None

    def trainers(self) -> list[int]:
        """Processes that train this run now: alive, and their attempt has not ended."""
        open_attempt, found = None, []
        for event in self.events():
            if event["event"] == "start":
                open_attempt = event["process"]
                found.append(open_attempt)
            elif event["event"] == "end" and open_attempt in found:
                found.remove(open_attempt)
        return [process for process in found if alive(process)]


def runs(project: Path, names: list[str]) -> dict[str, Run]:
    """The runs of the study by their names."""
    settings = dict(part.split("=", 1) for part in config(names))
    name = settings.pop("studies")
    overrides = {key: parse_yaml(value) for key, value in settings.items()}
    study = load_study(project / f"config/studies/{name}.yaml", overrides)
    return {run.axes["strategy"]: Run(project, name, run.id) for run in expand(study, name)}


def alive(process: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return re.search(r"^State:\s+[ZX]", Path(f"/proc/{process}/status").read_text(), re.MULTILINE) is None
    except (FileNotFoundError, ProcessLookupError):
        return False


def pending(process: int, number: int) -> bool:
    """Whether a signal waits for a process that is held; also where the sender has let it go on, and it has ended."""
    if not alive(process):
        return True
    masks = re.findall(r"^S(?:hd|ig)Pnd:\s+(\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def kill_job(job: str) -> None:
    """End all processes of a SLURM job as a node's crash does: its step daemons and all that has it in the environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            mine = f"SLURM_JOB_ID={job}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine or title.startswith(f"slurmstepd: [{job}.".encode()):
            os.kill(int(folder.name), signal.SIGKILL)
