"""Write the lists of pinned packages and the conda environment from requirements.in, with the hashes of all their files.

requirements.txt holds everything but PyTorch's build, and goes with one of two: requirements-cpu.txt, a build for the CPU alone
that PyTorch's own index has, and requirements-cuda.txt, the one of PyPI with what it needs of CUDA. They are not one list,
because pip takes whichever file is largest in version and known by its hash: it would fetch CUDA for machines without a GPU.

What is pinned already stays as it is, unless requirements.in asks for another version.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from hashlib import file_digest
from pathlib import Path

from ablation.cli import call
from ablation.errors import UserError
from ablation.files import write_text

ROOT = Path(__file__).parent.parent
COMMON, CPU, CUDA, CONDA = "requirements.txt", "requirements-cpu.txt", "requirements-cuda.txt", "envs/ablation.yaml"
PYTHON, PLATFORM = "3.11", "x86_64-unknown-linux-gnu"
GENERATED = "# Written by `make pins` from requirements.in.\n"
OF_PYTORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
CONDA_HEAD = """\
# One environment for all rules, as all scripts share one library. Python is conda's, the packages are PyPI's: the files that
# the virtual environment and the container have, as conda-forge does not have them all. They stand here in full, because
# Snakemake copies this file elsewhere before conda reads it, and makes the environment anew when its text changes.
channels: [conda-forge]
dependencies:
  - python={python}
  - pip
  - pip:
"""


def main() -> None:
    """Write the four files below ``--root``, where requirements.in lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    root = parser.parse_args().root
    pins = resolve(root)
    direct = {line.split("==")[0] for line in (root / "requirements.in").read_text(encoding="utf-8").splitlines()} - {"torch"}
    build = [pin for pin in pins if OF_PYTORCH.match(pin) and pin.split("==")[0] not in direct]
    common = [pin for pin in pins if pin not in build]
    torch = next(pin for pin in build if pin.startswith("torch=="))
    cpu = cpu_build(torch.split()[0])
    write_text(root / COMMON, GENERATED + "".join(common))
    write_text(root / CUDA, GENERATED + "# PyTorch as PyPI has it, and what it needs of CUDA.\n" + "".join(build))
    write_text(root / CPU, GENERATED + f"# PyTorch for the CPU: Python {PYTHON}, Linux, x86_64.\n" + cpu)
    lines = [f"      - {' '.join(pin.replace(chr(92), '').split())}\n" for pin in pins]
    write_text(root / CONDA, GENERATED + CONDA_HEAD.format(python=PYTHON) + "".join(lines))


def resolve(root: Path) -> list[str]:
    """All pins in order of name, each with its hashes in pip's form, by uv; it keeps the versions of the present lists."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "pinned.txt"
        pinned.write_text(
            "".join((root / name).read_text(encoding="utf-8") for name in (COMMON, CUDA) if (root / name).exists()),
            encoding="utf-8",
        )
        command = ["-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        where = ["--python-version", PYTHON, "--python-platform", PLATFORM]
        run([*command, *where, "--output-file", str(pinned), str(root / "requirements.in")])
        return re.split(r"(?m)^(?=\w)", pinned.read_text(encoding="utf-8"))[1:]


def cpu_build(torch: str) -> str:
    """The pin, such as ``torch==2.13.0``, of the build for the CPU. Raises UserError where pip finds none."""
    pin = f"{torch}+cpu"
    with tempfile.TemporaryDirectory() as folder:
        run(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder, pin])
        (wheel,) = Path(folder).iterdir()
        with wheel.open("rb") as file:
            return f"{pin} \\\n    --hash=sha256:{file_digest(file, 'sha256').hexdigest()}\n"


def run(arguments: list[str]) -> None:
    """Run a program of this environment; its last line is the UserError's when it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise UserError(f"{' '.join(arguments[:3])}: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    call(main)
