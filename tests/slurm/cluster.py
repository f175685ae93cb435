"""The SLURM of the tests and Snakemake on it, as the test files of this folder share them."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
IMPATIENT = ["--slurm-init-seconds-before-status-checks", "1", "--max-status-checks-per-second", "1"]


class Cluster:
    """The cluster that is up: its daemons, one by one."""

    def __init__(self, environment: dict[str, str]):
        self.environment = environment

    def __call__(self, *arguments: str) -> None:
        """``cluster.sh`` with these arguments: ``ctld kill``, ``dbd start``, ``node gpu01 kill``."""
        subprocess.run([HERE / "cluster.sh", *arguments], env=self.environment, check=True)


@contextmanager
def booted(folder: Path, **knobs: int) -> Iterator[Cluster]:
    """A SLURM with its state in ``folder``; ``knobs`` are those of cluster.sh, in small letters."""
    settings = {f"SLURM_LAB_{name.upper()}": str(value) for name, value in knobs.items()}
    cluster = Cluster({**os.environ, "SLURM_LAB": str(folder / "lab"), **settings})
    folder.chmod(0o755)
    for parent in folder.parents:  # the database runs as its own user and must reach its files
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    cluster("start")
    try:
        yield cluster
    finally:
        Snakemake.end_all()
        cluster("stop")


class Snakemake:
    """Snakemake on SLURM, started in ``project``; ``impatient`` where a test is not about its pauses between two looks."""

    started: list["Snakemake"] = []

    def __init__(
        self, project: Path, *arguments: str, config=(), impatient: bool = False, environment: Mapping[str, str] | None = None
    ):
        program = [str(HERE / "impatient.py")] if impatient else ["-m", "snakemake"]
        command = [sys.executable, *program, *arguments, "--profile", "slurm", *(IMPATIENT if impatient else [])]
        command += ["--config", *config] if config else []
        descriptor, name = tempfile.mkstemp(prefix="snakemake-", suffix=".log", dir=project)
        self.log = Path(name)
        with os.fdopen(descriptor, "w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=project,
                env={**os.environ, **(environment or {})},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=heed_interrupts,
            )
        self.started.append(self)

    def signal(self, number: int) -> None:
        """Send it a signal, as a terminal does: to all of its processes here."""
        os.killpg(self.process.pid, number)

    @classmethod
    def end_all(cls) -> None:
        """Kill what a failed test has left."""
        for one in cls.started:
            if one.process.poll() is None:
                one.signal(signal.SIGKILL)

    def end(self, limit: float) -> str:
        """Wait for it; one that hangs is interrupted (which cancels its jobs) and fails the test. Returns its output."""
        for allowed, ending in ((limit, signal.SIGINT), (30, signal.SIGKILL)):
            try:
                self.process.wait(timeout=allowed)
                break
            except subprocess.TimeoutExpired:
                self.signal(ending)
        status = self.process.wait()
        assert status == 0, f"exit status {status}\n{self.log.read_text()[-6000:]}"
        return self.log.read_text()


def heed_interrupts() -> None:
    """A shell that runs something in the background has it ignore SIGINT, and all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def accounting(since: str = "now-1hour") -> list[dict[str, str]]:
    """The jobs as SLURM's accounting has them; one that was queued again stands there several times."""
    fields = "JobID,JobName,Partition,Comment,State,NodeList,AllocTRES,ExitCode"
    done = subprocess.run(
        ["sacct", "-D", "-X", "-n", "-P", "-S", since, "-o", fields], capture_output=True, text=True, check=True
    )
    return list(csv.DictReader(done.stdout.splitlines(), fieldnames=fields.split(","), delimiter="|"))


def queue() -> list[tuple[str, str, str]]:
    """Id, state and comment of the jobs in the queue."""
    done = subprocess.run(["squeue", "-h", "-o", "%i|%T|%k"], capture_output=True, text=True, check=True)
    return [tuple(line.split("|", 2)) for line in done.stdout.splitlines()]


def wait_until(condition, what: str, limit: float = 200, pause: float = 0.1):
    """What ``condition`` returns, as soon as it is true."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never saw {what}"
        time.sleep(pause)
    return found
