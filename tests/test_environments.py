"""Every way of installing has the same packages, pinned with hashes; these are installed here, what is imported is pinned."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from write_requirements import GENERATED, PLATFORM, PYTHONS

ROOT = Path(__file__).parent.parent
LISTS = ["requirements.txt", "requirements-cpu.txt", "requirements-cuda.txt"]
PIP_ITSELF = {"pip"}
OF_ANOTHER_ENVIRONMENT = {ROOT / "tests/crate_validator.py"}


def pins(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of each package, by its canonical name, from a list in pip's form; no name comes twice."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        requirement, *hashes = line.split(" --hash=")
        pin = Requirement(requirement)
        name, (specifier,) = canonicalize_name(pin.name), pin.specifier
        assert specifier.operator == "==" and name not in found, line
        found[name] = (specifier.version, frozenset(part.strip() for part in hashes))
    return found


def pins_of(*names: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The same of files of the project, taken together as pip takes them."""
    return pins("".join((ROOT / name).read_text() for name in names))


def conda() -> dict:
    return yaml.safe_load((ROOT / "envs/ablation.yaml").read_text())


def installed_build() -> str:
    """The list that PyTorch was installed from here."""
    version = next(each.version for each in distributions() if each.metadata["Name"] == "torch")
    return "requirements-cpu.txt" if version.endswith("+cpu") else "requirements-cuda.txt"


@pytest.mark.parametrize("name", LISTS)
def test_every_pin_has_hashes(name):
    for package, (_, hashes) in pins_of(name).items():
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), package


def test_what_is_asked_for_is_what_is_pinned():
    direct = {name: version for name, (version, _) in pins_of("requirements.in").items()}
    for build in LISTS[1:]:
        pinned = {name: version.removesuffix("+cpu") for name, (version, _) in pins_of("requirements.txt", build).items()}
        assert direct.items() <= pinned.items()


def test_pytorch_is_in_the_lists_of_its_builds_alone():
    assert "torch" not in pins_of("requirements.txt")
    assert set(pins_of("requirements-cpu.txt")) == {"torch"}


def test_conda_has_the_same_files():
    *_, packages = conda()["dependencies"]
    assert pins("\n".join(packages["pip"])) == pins_of("requirements.txt", "requirements-cuda.txt")


def test_conda_has_the_python_that_the_lists_are_for():
    assert "python=3.11" in conda()["dependencies"]
    assert f'requires-python = ">={PYTHONS[0]},<3.14"' in (ROOT / "pyproject.toml").read_text()


def test_the_rules_name_environments_that_exist():
    named = [path for rules in (ROOT / "rules").glob("*.smk") for path in re.findall(r'conda:\s+"(.+)"', rules.read_text())]
    assert named
    assert {(ROOT / "rules" / path).resolve() for path in named} == set((ROOT / "envs").glob("*.yaml"))


def test_the_images_install_as_make_does():
    docker, apptainer = ((ROOT / name).read_text() for name in ("Dockerfile", "apptainer.def"))
    needed = ["Makefile", *LISTS]
    assert re.search(r"COPY (.+) /opt/ablation/", docker).group(1).split() == needed
    assert re.findall(r"(?m)^    (\S+) /opt/ablation/\1$", apptainer) == needed
    for same in (r"make -C /opt/ablation install .+", r"apt-get install [\w -]+\w", r"debian:[\w-]+"):
        assert re.search(same, docker).group().replace("${TORCH}", "cuda") == re.search(same, apptainer).group()
    assert "pip install" not in docker + apptainer


def test_make_takes_every_list_and_checks_hashes():
    command = ["make", "--dry-run", "install", "VENV=new", "TORCH=cuda"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--no-deps --require-hashes" in shown and "torch=cuda" in shown
    assert "--no-index" not in shown


def test_the_installed_packages_are_the_pinned_ones():
    pinned = {name: version for name, (version, _) in pins_of("requirements.txt", installed_build()).items()}
    installed = {canonicalize_name(each.metadata["Name"]): each.version for each in distributions()}
    assert {name: version for name, version in installed.items() if name not in PIP_ITSELF} == pinned


def test_every_import_is_asked_for():
    paths = [path for folder in ("scripts", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in {*paths} - OF_ANOTHER_ENVIRONMENT for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    packages = packages_distributions()
    imported = {canonicalize_name(packages[top][0]) for top in {name.split(".")[0] for name in names} if top in packages}
    assert imported > {"torch", "pandas", "snakemake"}
    assert imported <= set(pins_of("requirements.in"))


def made(target: str, *arguments: str, before: Path | None = None) -> subprocess.CompletedProcess:
    """``make``, with programs of the folder ``before`` found first."""
    path = os.pathsep.join([*([str(before)] if before else []), os.environ["PATH"]])
    command = ["make", target, f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})


@pytest.fixture
def with_gpu(tmp_path) -> Path:
    """A folder with what NVIDIA's driver brings, which tells of a GPU."""
    folder = tmp_path / "driver"
    folder.mkdir()
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA'\n")
    (folder / "nvidia-smi").chmod(0o755)
    return folder


CHOICES = {  # what pip does (finds all, or nothing), what is asked for -> the build, and why
    "pip finds the one for the CPU": ("true", [], "for the CPU alone, TORCH=cpu (pip finds it)"),
    "pip finds none": ("false", [], "for NVIDIA GPUs, several gigabytes, TORCH=cuda (pip finds none of requirements-cpu.txt"),
    "asked for CUDA": ("true", ["TORCH=cuda"], "for NVIDIA GPUs, several gigabytes, TORCH=cuda (as TORCH says)"),
    "asked for the CPU": ("true", ["TORCH=cpu"], "for the CPU alone, TORCH=cpu (as TORCH says)"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_which_pytorch_is_installed_is_said_and_why_and_how_to_have_the_other(tmp_path, with_gpu, case):
    """pip itself is left out, which would fetch it; a machine with a GPU is warned of a build that does not use it."""
    pip, asked, said = CHOICES[case]
    done = made("install", f"VENV={tmp_path / 'venv'}", f"PIP={pip}", *asked, before=with_gpu)
    assert f"PyTorch: the build {said}" in done.stdout and (done.returncode == 0) == (pip == "true")
    other = "cuda" if "TORCH=cpu" in said else "cpu"
    assert f"for the other one: make install TORCH={other}" in done.stdout
    warned = "warning: this machine has an NVIDIA GPU, which this build does not use; to use it: make install TORCH=cuda"
    assert (warned in done.stderr) == (other == "cuda")


def environment_with(build: str, folder: Path) -> Path:
    """A virtual environment in which PyTorch of a build seems to be installed, from before the lists were changed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "torch-2.0.dist-info").mkdir()
    version = {"cpu": "2.0+cpu", "cuda": "2.0"}[build]
    (packages / "torch-2.0.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    (folder / "installed").touch()
    return folder


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_the_build_that_is_installed_is_kept_until_another_is_asked_for(tmp_path, build):
    venv, other = environment_with(build, tmp_path / "venv"), {"cpu": "cuda", "cuda": "cpu"}[build]
    os.utime(venv / "installed", (0, 0))  # the lists are newer
    assert f"TORCH={build} (as it is installed)" in made("install", f"VENV={venv}", "PIP=true").stdout
    assert "PyTorch" not in made("install", f"VENV={venv}", "PIP=true", f"TORCH={build}").stdout, "nothing is to be done"
    changed = made("install", f"VENV={venv}", "PIP=true", f"TORCH={other}").stdout
    assert f"TORCH={other} (as TORCH says)" in changed and f"takes the place of the installed one, TORCH={build}" in changed


def test_a_build_that_there_is_not_is_refused(tmp_path):
    done = made("install", f"VENV={tmp_path / 'venv'}", "PIP=true", "TORCH=gpu")
    assert done.returncode and "error: TORCH=gpu: give cpu or cuda" in done.stderr
    assert not (tmp_path / "venv/installed").exists()


SOURCE_ONLY = {"connection-pool", "deepspeed"}  # no release of theirs has wheels: each Python builds them


def test_the_pin_of_the_cpu_build_says_for_which_pythons_it_is():
    head = f"{GENERATED}# PyTorch for the CPU: Python "
    text = (ROOT / "requirements-cpu.txt").read_text()
    pythons = text.removeprefix(head).partition(", Linux")[0].split(", ")
    ((_, hashes),) = pins(text).values()
    assert text.startswith(head) and set(pythons) <= set(PYTHONS) and len(hashes) == len(pythons)


@pytest.mark.install
@pytest.mark.parametrize("python", PYTHONS)
def test_pip_finds_a_wheel_of_each_pin_for_each_python(tmp_path, python):
    """It fetches them all, and holds them against the hashes; PyTorch's, which are larger, are looked up below."""
    text = (ROOT / "requirements.txt").read_text()
    entries = [entry for entry in re.split(r"(?m)^(?=\w)", text) if entry.partition("==")[0] not in SOURCE_ONLY]
    (tmp_path / "wheels.txt").write_text("".join(entries))
    found = [
        "--dry-run",
        "--ignore-installed",
        "--target",
        str(tmp_path / "nothing"),
        "--report",
        str(tmp_path / "report.json"),
    ]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", *found]
    command += ["--python-version", python, "--only-binary=:all:", "--requirement", str(tmp_path / "wheels.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    taken = {
        canonicalize_name(each["metadata"]["name"]) for each in json.loads((tmp_path / "report.json").read_text())["install"]
    }
    assert taken == set(pins_of("requirements.txt")) - SOURCE_ONLY


@pytest.mark.install
@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_has_the_same_packages_and_pytorch_for_cuda_has_wheels(tmp_path, python):
    """By the registry's metadata: what is asked for, resolved for a Python, is what the lists say, hash by hash."""
    lists = ["requirements.txt", "requirements-cuda.txt"]
    options = ["--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--python-version", python]
    compile = [sys.executable, "-m", "uv", "pip", "compile", *options, "--python-platform", PLATFORM, "--output-file"]
    (tmp_path / "all.txt").write_text("".join((ROOT / name).read_text() for name in lists))
    subprocess.run([*compile, tmp_path / "all.txt", ROOT / "requirements.in"], check=True)
    assert pins((tmp_path / "all.txt").read_text()) == pins_of(*lists)
    wheels = [*compile, tmp_path / "cuda.txt", "--no-deps", "--only-binary", ":all:", ROOT / "requirements-cuda.txt"]
    subprocess.run(wheels, check=True)
    assert pins((tmp_path / "cuda.txt").read_text()) == pins_of("requirements-cuda.txt")


@pytest.mark.install
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="taking the network away needs root")
def test_a_folder_of_wheels_is_enough_without_a_network(tmp_path):
    """In a network namespace without an interface, and with nothing of pip's own settings."""
    for name in ("Makefile", *LISTS):
        shutil.copy2(ROOT / name, tmp_path)
    subprocess.run(["make", "wheelhouse", f"VENV={sys.prefix}"], cwd=tmp_path, check=True)
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | {"PIP_CONFIG_FILE": os.devnull}
    install = ["unshare", "--net", "make", "install", "VENV=venv", "WHEELHOUSE=wheelhouse", f"PYTHON={sys.executable}"]
    subprocess.run(install, cwd=tmp_path, env=alone, check=True)
    subprocess.run(["venv/bin/python", "-c", "import deepspeed, snakemake, torch"], cwd=tmp_path, check=True)
