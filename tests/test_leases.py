"""No two jobs have one GPU, no two jobs train one run, and what a dead job held is free."""

import errno
import fcntl
import multiprocessing
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from ablation import gpus
from ablation.errors import UserError
from ablation.locks import lease_folder


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def _hold(folder, count, seconds, log):
    with gpus.lease_gpus(count, Path(folder)) as held:
        start = time.monotonic()
        time.sleep(seconds)
        with open(log, "a") as file:  # noqa: PTH123 - appended by several processes
            file.writelines(f"{name} {start} {time.monotonic()} {os.environ['CUDA_VISIBLE_DEVICES']}\n" for name in held)


def test_two_jobs_never_share_a_gpu(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    log, fork = tmp_path / "log", multiprocessing.get_context("fork")
    jobs = [fork.Process(target=_hold, args=(tmp_path / "locks", 1 + i % 2, 0.1, log)) for i in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
        assert job.exitcode == 0
    rows = [line.split() for line in log.read_text().splitlines()]
    assert len(rows) == 12 and {row[0] for row in rows} == {"0", "1"}
    for name in ("0", "1"):
        spans = sorted((float(start), float(end)) for gpu, start, end, _ in rows if gpu == name)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_a_killed_holder_frees_its_gpu(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    fork = multiprocessing.get_context("fork")
    holder = fork.Process(target=_hold, args=(tmp_path, 2, 60, tmp_path / "log"))
    holder.start()
    while sum(1 for _ in tmp_path.iterdir()) < 2:
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with gpus.lease_gpus(2, tmp_path) as held:
        assert held == ["0", "1"]


def test_preset_devices_are_respected_and_restored(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held == ["3"] and os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3, 5"
    with pytest.raises(RuntimeError, match="3 GPUs asked for, 2 visible"), gpus.lease_gpus(3, tmp_path):
        pass


def test_slurm_s_choice_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held == ["0"]
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_nothing_is_leased(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_in_one_line(tmp_path, monkeypatch, number):
    def refuse(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    opened = sum(1 for _ in Path("/proc/self/fd").iterdir())
    with pytest.raises(UserError, match=r"has no file locks .*mount it with them") as caught, lease_folder(tmp_path):
        pass
    assert str(tmp_path / "state/lock") in str(caught.value) and "\n" not in str(caught.value)
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == opened


def test_other_errors_of_a_lock_are_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken disk"), lease_folder(tmp_path):
        pass


def _hold_folder(folder):
    with lease_folder(folder):
        time.sleep(60)


def test_two_jobs_never_train_one_run(tmp_path):
    fork = multiprocessing.get_context("fork")
    holder = fork.Process(target=_hold_folder, args=(tmp_path,))
    holder.start()
    while not (tmp_path / "state/lock").is_file() or not (tmp_path / "state/lock").read_text():
        time.sleep(0.02)
    with pytest.raises(UserError, match=f"another job trains this run .process {holder.pid} on "), lease_folder(tmp_path, 0.1):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    with lease_folder(tmp_path):  # waits until the killed one has let go
        assert (tmp_path / "state/lock").read_text().startswith(f"process {os.getpid()} ")
    holder.join()
