"""Where a result comes from: code, packages, machine, job. No secrets, no user's paths."""

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ablation import nvml

PACKAGES = ("torch", "peft", "accelerate", "transformers", "safetensors", "numpy", "pycolmap", "snakemake")


def manifest(device: str) -> dict[str, Any]:
    """What a run ran on. ``device``: torch's name of it, such as ``cuda:0``."""
    return {
        "schema": 1,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "device": _device(device),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def code_hash() -> str:
    """A hash of the program's own files, as they are now."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_version() -> dict[str, Any]:
    """Commit of the workflow and whether files were changed since; None outside a git checkout."""
    root = Path(__file__).parent
    commit = _git(root, "rev-parse", "HEAD")
    return {
        "commit": commit,
        "changed": bool(_git(root, "status", "--porcelain", "--untracked-files=no")) if commit else None,
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device(device: str) -> dict[str, Any]:
    torch = sys.modules["torch"]
    if not device.startswith("cuda"):
        return {"type": "cpu", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": "cuda",
        "name": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "driver": nvml.driver_version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
