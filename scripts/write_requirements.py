"""Write the lists of pinned packages and the conda environment from requirements.in, with the hashes of all their files.

requirements.txt holds everything but PyTorch's build, and goes with one of two: requirements-cpu.txt, a build for the CPU alone
that PyTorch's own index has, and requirements-cuda.txt, the one of PyPI with what it needs of CUDA. They are not one list,
because pip takes whichever file is largest in version and known by its hash: it would fetch CUDA for machines without a GPU.

They hold for every Python of PYTHONS: each needs the same packages, and the hashes are those of all files of a version.
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
PYTHONS, PLATFORM = ("3.11", "3.12", "3.13"), "x86_64-unknown-linux-gnu"
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
    pins, *others = (resolve(root, python) for python in PYTHONS)
    for python, other in zip(PYTHONS[1:], others, strict=True):
        if other != pins:
            unlike = ", ".join(sorted(pin.split()[0] for pin in {*pins} ^ {*other}))
            raise UserError(f"Python {python} needs other packages than {PYTHONS[0]} ({unlike}); the lists are for all")
    direct = {line.split("==")[0] for line in (root / "requirements.in").read_text(encoding="utf-8").splitlines()} - {"torch"}
    build = [pin for pin in pins if OF_PYTORCH.match(pin) and pin.split("==")[0] not in direct]
    common = [pin for pin in pins if pin not in build]
    torch = next(pin for pin in build if pin.startswith("torch=="))
    pythons, cpu = cpu_build(torch.split()[0])
    write_text(root / COMMON, GENERATED + "".join(common))
    write_text(root / CUDA, GENERATED + "# PyTorch as PyPI has it, and what it needs of CUDA.\n" + "".join(build))
    write_text(root / CPU, GENERATED + f"# PyTorch for the CPU: Python {', '.join(pythons)}, Linux, x86_64.\n" + cpu)
    lines = [f"      - {' '.join(pin.replace(chr(92), '').split())}\n" for pin in pins]
    write_text(root / CONDA, GENERATED + CONDA_HEAD.format(python=PYTHONS[0]) + "".join(lines))


def resolve(root: Path, python: str) -> list[str]:
    """All pins for a Python in order of name, each with its hashes in pip's form, by uv, which keeps the present versions."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "pinned.txt"
        pinned.write_text(
            "".join((root / name).read_text(encoding="utf-8") for name in (COMMON, CUDA) if (root / name).exists()),
            encoding="utf-8",
        )
        command = ["-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        where = ["--python-version", python, "--python-platform", PLATFORM]
        run([*command, *where, "--output-file", str(pinned), str(root / "requirements.in")])
        return re.split(r"(?m)^(?=\w)", pinned.read_text(encoding="utf-8"))[1:]


def cpu_build(torch: str) -> tuple[list[str], str]:
    """For which Pythons pip finds the build for the CPU of a pin such as ``torch==2.13.0``, and the pin of that build.

    Raises UserError where pip finds none.
    """
    pin, hashes, problem = f"{torch}+cpu", {}, None
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as folder:
            of_python = ["--only-binary=:all:", "--python-version", python, "--dest", folder]
            try:
                run(["-m", "pip", "download", "--quiet", "--no-deps", *of_python, pin])
            except UserError as error:
                problem = error
                continue
            (wheel,) = Path(folder).iterdir()
            with wheel.open("rb") as file:
                hashes[python] = file_digest(file, "sha256").hexdigest()
    if not hashes:
        raise problem
    return list(hashes), " \\\n    --hash=sha256:".join([pin, *sorted(set(hashes.values()))]) + "\n"


def run(arguments: list[str]) -> None:
    """Run a program of this environment; its last line is the UserError's when it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise UserError(f"{' '.join(arguments[:3])}: {done.stderr.strip().splitlines()[-1]}")


if __name__ == "__main__":
    call(main)
