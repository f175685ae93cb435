"""Programs that some tests need and pip has not: installed by apt where the tests run as root on Debian, as in CI."""

import os
import shutil
import subprocess

import pytest


def need(**packages: str) -> None:
    """See that programs are there; ``packages``: program -> the Debian package that has it. Skips where that cannot be."""
    missing = [package for program, package in packages.items() if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"needs {', '.join(missing)}, which only root can install")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if command is install and done.returncode == 0:
            return
    pytest.fail(f"apt-get could not install {', '.join(missing)}:\n{done.stderr[-2000:]}")
