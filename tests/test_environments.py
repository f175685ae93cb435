"""Every way of installing has the same packages, pinned with hashes; these are installed here, what is imported is pinned."""

import ast
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
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()


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
