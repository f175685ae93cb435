"""No two jobs have one GPU, no two jobs train one run, and what a dead job held is free."""

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from ablation import gpus, lease, leave, nvml
from ablation.errors import UserError

PATIENCE = 300.0  # seconds, for what takes less than one where nothing else runs
STALE = 2.0  # seconds without a sign of life, of which there are fifty in one: longer than a busy machine holds all of them up


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def _hold(folder, count, seconds, log):
    with gpus.lease_gpus(count, Path(folder)) as held:
        start = time.monotonic()
        time.sleep(seconds)
        with open(log, "a") as file:  # noqa: PTH123 - appended by several processes
            file.writelines(f"{name} {start} {time.monotonic()} {os.environ['CUDA_VISIBLE_DEVICES']}\n" for name in held.gpus)


def test_two_jobs_never_share_a_gpu(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    log, fork = tmp_path / "log", multiprocessing.get_context("fork")
    jobs = [fork.Process(target=_hold, args=(tmp_path / "locks", 1 + i % 2, 0.1, log)) for i in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(PATIENCE)
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
    while '"waits": false' not in "".join(path.read_text() for path in tmp_path.glob("member-*")):
        time.sleep(0.02)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with gpus.lease_gpus(2, tmp_path) as held:
        assert held.gpus == ["0", "1"]


def test_preset_devices_are_respected_and_restored(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held.gpus == ["3"] and os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3, 5"
    with pytest.raises(UserError, match="3 GPUs asked for, 2 visible"), gpus.lease_gpus(3, tmp_path):
        pass


def test_two_jobs_in_an_allocation_with_two_gpus_are_on_different_ones(tmp_path, two_gpus, monkeypatch):
    """As where the local profile, or two workflows, run in it: SLURM gave the GPUs to all of them together."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with gpus.lease_gpus(1, tmp_path) as one:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # as another job has it
        with gpus.lease_gpus(1, tmp_path) as two:
            assert (one.gpus, two.gpus) == (["0"], ["1"]) and os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_job_that_takes_all_gets_them_before_those_that_came_later(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    log, fork = tmp_path / "log", multiprocessing.get_context("fork")
    jobs = []
    for number, count in enumerate((1, 1, 2, 1, 1, 1), start=1):
        jobs.append(fork.Process(target=_hold, args=(tmp_path / "locks", count, 0.2, log)))
        jobs[-1].start()
        while sum(1 for _ in (tmp_path / "locks").glob("member-*")) < number and jobs[-1].is_alive():
            time.sleep(0.01)
    for job in jobs:
        job.join(30)
        assert job.exitcode == 0
    rows = [line.split() for line in log.read_text().splitlines()]
    began = [float(start) for _, start, _, visible in rows if visible == "0,1"]
    assert len(rows) == 7 and sum(float(start) < began[0] for _, start, _, _ in rows) == 2


def test_numbers_that_an_allocation_gives_are_its_own(monkeypatch):
    """On nodes that show a job its own GPUs only, each job's first one is number 0; NVML, which is not here, knows better."""
    assert gpus.identity("0") == "0"
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    for job, name in (("7", "7/n1/0"), ("8", "8/n1/0")):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        assert gpus.identity("0") == name and gpus.identity("MIG-1") == "MIG-1"


def test_a_card_is_one_by_whatever_name(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(nvml, "gpu_uuids", lambda: ["GPU-aa11", "GPU-aa22", "GPU-b"])
    assert [gpus.identity(name) for name in ("0", "GPU-aa1", "GPU-aa11", "2", "GPU-b")] == [
        "GPU-aa11", "GPU-aa11", "GPU-aa11", "GPU-b", "GPU-b"
    ]  # fmt: skip


@pytest.mark.parametrize("names", ["", "-1", "NoDevFiles"])
def test_a_job_to_which_slurm_gave_none_holds_none(tmp_path, monkeypatch, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    with gpus.lease_gpus(1, tmp_path) as held:
        assert held.gpus == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_in_one_line(tmp_path, monkeypatch, number):
    def refuse(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    opened = sum(1 for _ in Path("/proc/self/fd").iterdir())
    with pytest.raises(UserError, match=r"has no file locks .*mount it with them") as caught, lease.hold(tmp_path):
        pass
    assert str(tmp_path / "state/lease.json") in str(caught.value) and "\n" not in str(caught.value)
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == opened


def test_other_errors_of_a_lock_are_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken disk"), lease.hold(tmp_path):
        pass


# --- folders ---------------------------------------------------------------------------------------------------------


def _hold_folder(folder):
    with lease.hold(folder):
        time.sleep(60)


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """Another process that holds the lease on ``tmp_path``, with signs of life every few hundredths of a second."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)
    process = multiprocessing.get_context("fork").Process(target=_hold_folder, args=(tmp_path,))
    process.start()
    while not lease.holder(tmp_path / "state/lease.json"):
        time.sleep(0.02)
    yield process
    process.kill()
    process.join()


def wait_for(folder, said):
    """Wait for the lease in a thread; what it says goes into ``said``. Held, the thread ends."""

    def take():
        with lease.hold(folder, said.append):
            said.append("held")

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def test_a_second_job_waits_for_the_first_and_takes_over_when_it_dies(tmp_path, holder):
    found = lease.holder(tmp_path / "state/lease.json")
    assert found["process"] == holder.pid and found["beat"] >= found["since"] and found["slurm_job"] is None
    said = []
    second = wait_for(tmp_path, said)
    while not said:
        time.sleep(0.02)
    assert said == [f"waiting for the job that trains this run: process {holder.pid} on {found['host']}"]
    os.kill(holder.pid, signal.SIGKILL)
    second.join(PATIENCE)
    assert said[1:] == ["held"]


def test_a_holder_without_a_sign_of_life_is_replaced_and_notices(tmp_path, holder, monkeypatch):
    """Frozen, as on a machine that hangs, it keeps its lock."""
    monkeypatch.setattr(lease, "STALE_SECONDS", STALE)
    said = []
    second = wait_for(tmp_path, said)
    time.sleep(1.2 * STALE)
    assert len(said) == 1, "it lives: nobody may take its lease"
    old = str((tmp_path / "state/lease.json").stat().st_ino)
    os.kill(holder.pid, signal.SIGSTOP)
    second.join(PATIENCE)
    assert "has been silent for" in said[1] and said[2:] == ["held"]
    monkeypatch.setenv(lease.HELD, old)  # as the old holder and the processes that it started have it
    with pytest.raises(UserError, match="another has taken over its run"):
        lease.check(tmp_path)
    os.kill(holder.pid, signal.SIGCONT)
    time.sleep(0.1)  # it beats again, into the file that nobody reads any more
    assert lease.holder(tmp_path / "state/lease.json")["process"] == os.getpid()


def test_of_many_that_take_over_one_holds_at_a_time(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(lease, "STALE_SECONDS", STALE)
    os.kill(holder.pid, signal.SIGSTOP)
    inside, most = [], []

    def take():
        with lease.hold(tmp_path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == [1] * 8


def test_who_waits_can_be_asked_to_leave(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(leave, "_asked", ["SIGTERM"])
    with pytest.raises(leave.Left, match="SIGTERM"), lease.hold(tmp_path):
        pass


def test_a_lease_is_free_after_its_holder_and_checks_where_there_is_none(tmp_path):
    for _ in range(2):
        with lease.hold(tmp_path):
            lease.check(tmp_path)
    lease.check(tmp_path)
