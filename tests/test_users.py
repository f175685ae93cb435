"""Two users of one machine never have one GPU, and what one of them leaves where GPUs are leased stops or fools nobody."""

import json
import multiprocessing
import os
import signal
import stat
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from faults import survived

from ablation import gpus, sharing
from ablation.errors import UserError
from ablation.sharing import Queue

FORK = multiprocessing.get_context("fork")
ALICE, BOB = 60001, 60002

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becomes two users, which root alone may")


@pytest.fixture
def folder(monkeypatch):
    """Where all users lease the machine's two pretended GPUs; they may come to it, as to /dev/shm and unlike to pytest's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)
    with TemporaryDirectory(ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o1777)
        yield Path(place) / "leases"


def as_user(user, work, *arguments):
    """A process in which ``user``, who lets nobody read new files, does ``work``."""

    def become():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        os.umask(0o077)
        work(*arguments)

    process = FORK.Process(target=become)
    process.start()
    return process


def hold(folder, count, seconds, said):
    """Hold GPUs, and tell when."""
    with gpus.lease_gpus(count, folder) as held:
        began = time.monotonic()
        time.sleep(seconds)
        os.write(said, "".join(f"{os.getuid()} {name} {began} {time.monotonic()}\n" for name in held.gpus).encode())


@needs_root
@pytest.mark.fault
def test_two_users_are_never_on_one_gpu(folder):
    begun = time.monotonic()
    read, said = os.pipe()
    jobs = [as_user((ALICE, BOB)[i % 2], hold, folder, 1 + i // 6, 0.1, said) for i in range(8)]
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    os.close(said)
    with os.fdopen(read) as stream:
        rows = [line.split() for line in stream]
    assert len(rows) == 10 and {user for user, *_ in rows} == {str(ALICE), str(BOB)}
    for gpu in "01":
        spans = sorted((float(start), float(end)) for _, name, start, end in rows if name == gpu)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    seen = "“waiting for 1 of the GPUs 0, 1: other jobs hold them”; each card has one job at a time"
    row = {"seconds": time.monotonic() - begun, "repeated": None, "same": "each alone on its card"}
    survived("two users, one machine with GPUs", "local", seen=seen, **row)


@needs_root
def test_what_another_user_s_killed_job_held_is_free(folder):
    read, said = os.pipe()
    killed = as_user(ALICE, hold, folder, 2, 60, said)
    while not any('"waits": false' in path.read_text() for path in folder.glob("member-*")):
        assert killed.is_alive()
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    later = as_user(BOB, hold, folder, 2, 0, said)
    later.join(30)
    assert later.exitcode == 0 and os.read(read, 1000).decode().startswith(f"{BOB} 0 ")


@needs_root
def test_parts_of_a_card_are_held_beside_those_of_another_user(folder):
    def take(mib):
        queue = Queue(folder, ["a"], 1, mib, 8)
        time.sleep(0 if queue.ask() == ["a"] else 60)
        time.sleep(0.3)
        queue.leave()

    mine = Queue(folder, ["a"], 1, 3, 8)
    assert mine.ask() == ["a"]
    for user in (ALICE, BOB):  # the second one finds the first one's word that there were two, and its file
        job = as_user(user, take, 5)
        job.join(30)
        assert job.exitcode == 0
    assert mine.most() == 2
    mine.leave()


# --- what may lie there ------------------------------------------------------------------------------------------------


def member(number):
    return f"member-{number:020d}"


HOSTILE = {
    "no JSON": lambda folder: (folder / member(1)).write_bytes(b"\xff{"),
    "deep": lambda folder: (folder / member(1)).write_bytes(b"[" * 60_000),
    "other fields": lambda folder: (folder / member(1)).write_text('{"cards": ["0", "1"]}'),
    "less than nothing": lambda folder: (folder / member(1)).write_text(json.dumps({"cards": "01", "mib": -9, "waits": False})),
    "a folder": lambda folder: (folder / member(1)).mkdir(),
    "a link": lambda folder: (folder / member(1)).symlink_to("/etc/passwd"),
    "a pipe": lambda folder: os.mkfifo(folder / member(1)),
    "numbers": lambda folder: [(folder / name).touch() for name in (f"member-{10**240}", "member-x", f"{member(1)}.999999")],
}  # fmt: skip


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("locked", [False, True])
def test_a_file_that_is_no_member_s_holds_nothing(folder, harm, locked):
    folder.mkdir()
    harm(folder)
    held = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in folder.iterdir() if not path.is_symlink()] if locked else []
    for descriptor in held:
        assert sharing.lock_or_close(descriptor, folder)
    opened = sum(1 for _ in Path("/proc/self/fd").iterdir())
    queue = Queue(folder, ["0", "1"], 2)
    assert queue.ask() == ["0", "1"] and queue.most() == 1
    queue.leave()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == opened and Path("/etc/passwd").exists()
    for descriptor in held:
        os.close(descriptor)


def test_who_holds_the_folder_s_lock_makes_others_wait_and_they_can_be_asked_to_leave(folder, monkeypatch):
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    assert sharing.lock_or_close(descriptor, folder)
    monkeypatch.setattr(gpus.leave, "_asked", ["SIGTERM"])
    with pytest.raises(gpus.leave.Left):
        Queue(folder, ["0"], 1)
    os.close(descriptor)


def _closed(folder):
    folder.mkdir(mode=0o700)


def _a_file(folder):
    folder.touch()


def _elsewhere(folder):
    folder.symlink_to(folder.parent)


@needs_root
@pytest.mark.parametrize("harm", [_closed, _a_file, _elsewhere])
def test_a_folder_that_cannot_be_used_is_named_in_one_line(folder, harm):
    harm(folder)
    read, said = os.pipe()

    def lease():
        try:
            hold(folder, 1, 0, said)
        except UserError as error:
            os.write(said, str(error).encode())

    as_user(ALICE, lease).join(30)
    error = os.read(read, 1000).decode()
    assert error.startswith(f"{folder}: GPUs cannot be leased in this folder (") and "1777" in error and "\n" not in error
    assert list(folder.parent.glob("member-*")) == []


def test_a_job_whose_place_was_removed_says_so_and_takes_no_card(folder):
    queue = Queue(folder, ["0"], 1)
    queue.path.unlink()
    with pytest.raises(UserError, match="No such file"):
        queue.ask()
