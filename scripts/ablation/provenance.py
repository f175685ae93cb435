"""On what a result was computed: code, packages, machine, job. No secrets, no user's paths."""

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

PACKAGES = (
    "torch", "peft", "accelerate", "transformers", "safetensors", "numpy", "pycolmap", "snakemake", "deepspeed", "diffusers",
    "h5py", "mujoco-core", "pandas", "pillow", "pyarrow", "pydantic", "scikit-image", "scipy", "sentencepiece", "tokenizers",
    "trimesh",
)  # fmt: skip
"""What computes, reads or writes numbers."""


def surroundings(device: str) -> dict[str, Any]:
    """What a run runs on, from inside its process (:mod:`ablation.manifest`). ``device``: torch's name, such as ``cuda:0``."""
    from ablation.arithmetic import arithmetic

    torch = sys.modules["torch"]
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "host": platform.node(),
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "arithmetic": arithmetic(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "device": device_facts(device),
        **_slurm(),
    }


def code_hash() -> str:
    """A hash of the program's own files, as they are now."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_version() -> dict[str, Any]:
    """Commit of the workflow, and what was changed since (None outside a git checkout); a hash of the program's files."""
    root = Path(__file__).parent
    commit = _git(root, "rev-parse", "HEAD")
    difference = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") if commit else None
    return {
        "commit": commit and commit.decode().strip(),
        "changed": None if difference is None else bool(difference),
        "diff_sha256": hashlib.sha256(difference).hexdigest() if difference else None,
        "program_sha256": code_hash(),
    }


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device_facts(device: str) -> dict[str, Any]:
    """Of torch's ``device`` what numbers may depend on."""
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
        "cudnn": torch.backends.cudnn.version(),
        "driver": nvml.driver_version(),
    }


def _slurm() -> dict[str, str | None]:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_array": f"{array}_{task}" if array and task else None,
        "slurm_partition": os.environ.get("SLURM_JOB_PARTITION"),
    }


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
