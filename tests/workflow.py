"""The workflow as its users run it: Snakemake, as a program, on a copy of the project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

TWO_SCENES = "data={scenes: [library, motorcycle], split: {test: [motorcycle]}}"
"""Data of small studies. Those that share it and a cell share the trace of its step."""


def copy_project(target: Path) -> Path:
    """The project as git has it (with what is not ignored), or as it lies there when this is no checkout.

    It keeps its traces of steps where the project does: they are named by what they depend on, and all tests need the same.
    """
    copied = copy_files(target)
    traces = ROOT / "results/traces"
    traces.mkdir(parents=True, exist_ok=True)
    (target / "results").mkdir(exist_ok=True)
    (target / "results/traces").symlink_to(traces)
    return copied


def copy_files(target: Path) -> Path:
    """See :func:`copy_project`."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        shutil.copytree(ROOT, target, symlinks=True, ignore=shutil.ignore_patterns(".venv", "results", ".snakemake", ".git"))
        return target
    for name in listed.stdout.splitlines():
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            (target / name).symlink_to(source.readlink())
        elif source.is_file():
            shutil.copy2(source, target / name)
    return target


def snakemake(folder: Path, *arguments: str, config=(), timeout=600, gpus="") -> subprocess.CompletedProcess:
    """Run Snakemake in ``folder``. The target comes first: --config swallows one that follows it. ``gpus``: those it sees."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--profile", "local", "-c2"]
    if config:
        command += ["--config", *config]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout, env=environment)


def jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from the statistics of a (dry) run."""
    lines = (done.stdout + done.stderr).splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("job ") and "count" in line), None)
    if start is None:
        return {}
    rows = (line.split() for line in lines[start + 2 : lines.index("", start)])
    return {name: int(count) for name, count in rows if name != "total"}
