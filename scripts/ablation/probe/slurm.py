"""Probes as job arrays of SLURM, sent with submitit: one array for all jobs that need the same of a machine."""

import os
import re
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import SlurmExecutor

from ablation.errors import UserError
from ablation.probe.jobs import Ended, Job, error_line, killed_by, last_words

ARRAY_LIMIT = 1000  # tasks an array; SLURM's default MaxArraySize is 1001
POLL_SECONDS = 5.0
LATENCY_SECONDS = 30.0  # until a file that a node wrote is seen here
ACCOUNTING_SECONDS = 120.0  # until the accounting has heard how a task ended
NAME = "probe"
SUBMITIT_ERROR = f"{FailedJobError.__module__}.{FailedJobError.__name__}: "
MINUTES = 60  # time limit where the profile sets none
PARAMETERS = {"slurm_partition": "partition", "slurm_account": "account", "constraint": "constraint", "qos": "qos"}
SUBMIT_LIMIT = "(Max|Grp)Submit"  # in SLURM's words for a limit on the jobs in the queue


class _Larger(Exception):
    """An array has more tasks than a user may have in the queue."""


def run_on_slurm(jobs: Sequence[Job], logs: Path, cluster: Mapping[str, Any]) -> Generator[Ended]:
    """Send ``jobs``, wait for them. Left early, it cancels those that have not ended.

    ``cluster`` holds resources as Snakemake's SLURM executor names them (``slurm_partition``, ``slurm_account``, ``runtime``
    in minutes, ``mem_mb``, ``gpu_model``, ``gres``, ``constraint``, ``qos``, ``slurm_extra``) and ``jobs``, how many of an
    array may run at a time. Raises :class:`UserError` when SLURM refuses them.
    """
    sent: dict[submitit.Job, Job] = {}
    try:
        for tasks in _sent(jobs, logs, cluster):
            sent.update(tasks)
        for task, reason in _wait(list(sent), logs):
            yield sent.pop(task), reason
    finally:
        if arrays := {task.job_id.split("_")[0] for task in sent}:
            subprocess.run(["scancel", *arrays], check=False)


def _wait(tasks: list[submitit.Job], logs: Path) -> Iterator[tuple[submitit.Job, str | None]]:
    """Each task as it ends, and why it failed.

    submitit asks sacct, which never hears of a task that was cancelled in the queue, and late of others; what has left the
    queue has ended. A preempted task goes back into it.
    """
    missed: dict[str, float] = {}
    while tasks:
        time.sleep(POLL_SECONDS)
        queue, files, now = _queue(), {path.name for path in logs.iterdir()}, time.monotonic()
        for task in list(tasks):
            wrote = task.paths.result_pickle.name in files and not _withdrawn(task)
            if not wrote and (queue is None or task.job_id in queue):
                missed.pop(task.job_id, None)
            elif wrote or now - missed.setdefault(task.job_id, now) > _patience(task):
                tasks.remove(task)
                yield task, _failure(task) if wrote else _loss(task)


def _patience(task: submitit.Job) -> float:
    """Seconds to wait for word of a task that has left the queue: longer where it began and its end is not accounted for."""
    began = task.paths.stdout.is_file()
    return ACCOUNTING_SECONDS if began and not task.watcher.is_done(task.job_id, mode="force") else LATENCY_SECONDS


def _queue() -> set[str] | None:
    """Ids of this user's probes that wait or run; None while the controller does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--name", NAME, "--format", "%i"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    return None if done.returncode else set(done.stdout.split())


def _arrays(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    def need(job: Job) -> tuple[int, int, int]:
        return job.gpus, job.threads, job.mem_gib

    for _, group in groupby(sorted(jobs, key=need), key=need):
        alike = list(group)
        yield from (alike[start : start + ARRAY_LIMIT] for start in range(0, len(alike), ARRAY_LIMIT))


def _sent(jobs: Sequence[Job], logs: Path, cluster: Mapping[str, Any]) -> Iterator[dict[submitit.Job, Job]]:
    """The tasks of each array that SLURM has taken. One that is larger than a limit on submitted jobs goes in halves."""
    waiting = deque(_arrays(jobs))
    while waiting:
        array = waiting.popleft()
        try:
            yield dict(zip(_submit(array, logs, cluster), array, strict=True))
        except _Larger:
            half = len(array) // 2
            waiting.extendleft([array[half:], array[:half]])


def _submit(array: Sequence[Job], logs: Path, cluster: Mapping[str, Any]) -> list[submitit.Job]:
    try:
        executor = SlurmExecutor(folder=logs)
        executor.update_parameters(**sbatch_parameters(array[0], cluster))
        with executor.batch():
            return [executor.submit(submitit.helpers.CommandFunction(job.command)) for job in array]
    except RuntimeError as error:  # sbatch's refusal, or no SLURM here
        if len(array) > 1 and re.search(SUBMIT_LIMIT, str(error)):
            raise _Larger from None
        raise UserError(f"SLURM took no probe: {last_words(str(error))}") from None


def sbatch_parameters(job: Job, cluster: Mapping[str, Any]) -> dict[str, Any]:
    """What submitit writes at the head of the script of an array of jobs like ``job``."""
    model = f"{cluster['gpu_model']}:" if "gpu_model" in cluster else ""
    gpus = {"gres": cluster["gres"]} if "gres" in cluster else {"gpus": f"{model}{job.gpus}"}
    return {
        "job_name": NAME,
        **{ours: cluster[name] for name, ours in PARAMETERS.items() if name in cluster},
        "nodes": 1,
        "time": cluster.get("runtime", MINUTES),
        "mem": f"{cluster.get('mem_mb', job.mem_gib * 1024)}M",
        "cpus_per_task": job.threads,
        "array_parallelism": cluster["jobs"],
        "setup": [f"export OMP_NUM_THREADS={job.threads}"],
        "wckey": None,
        "stderr_to_stdout": True,
        "use_srun": False,  # one task: a step of its own would only need its CPUs and GPUs named again
        # A preempted probe, or one whose node failed, starts again by itself.
        "additional_parameters": {"requeue": True, **gpus, **_extra(cluster.get("slurm_extra", ""))},
    }


def _extra(text: str) -> dict[str, str | bool]:
    """The options of ``slurm_extra``: ``--name=value`` or ``--name``; less a signal, which is for what can save its work."""
    words = shlex.split(text)
    if wrong := [word for word in words if not word.startswith("--")]:
        raise UserError(f"slurm_extra: {' '.join(wrong)}: write options for sbatch as --name=value")
    options = (word.removeprefix("--").partition("=") for word in words)
    return {name: value if equals else True for name, equals, value in options if name != "signal"}


def _withdrawn(task: submitit.Job) -> bool:
    """Whether SLURM is taking the task back: it ends the command, and submitit may live to write that as the task's result.

    Such a result is removed: the task has ended, or begins again, as SLURM says.
    """
    withdrawn = _failure(task) == killed_by("SIGTERM")
    if withdrawn:
        task.paths.result_pickle.unlink()
    return withdrawn


def _failure(task: submitit.Job) -> str | None:
    """Why the command of a task failed, out of what submitit wraps around what it wrote; None where it did not."""
    error = task.exception()
    if error is None:
        return None
    trace = str(error).split("----------------------")[1]
    death = re.search(r"died with <Signals\.(\w+)", trace)
    return killed_by(death[1]) if death else last_words(trace.replace(SUBMITIT_ERROR, ""))


def _loss(task: submitit.Job) -> str:
    """Why a task ended without a result, as far as SLURM knows."""
    began = task.paths.stdout.is_file()
    unknown = "left the queue while it ran" if began else "left the queue unrun; cancelled?"
    state = task.get_info(mode="force").get("State", unknown)
    said = error_line(task.paths.stdout.read_text(encoding="utf-8", errors="replace")) if began else None
    return f"SLURM: {state}{f' ({said})' if said else ''}"
