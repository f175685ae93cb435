"""Several processes write the same file or folder at the same time, or one is killed as it does: what is read is whole."""

import json
import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from faults import survived

from ablation.files import LEFT_SECONDS, remove_folder, replace_folder, replacing, write_bytes, write_json
from ablation.resolved import save_study
from ablation.vram.trace import Mark, Trace
from ablation.vram.traces import _load, _save

FORK = multiprocessing.get_context("fork")
WRITERS, ROUNDS = 16, 3


def at_once(count: int, work) -> list[int]:
    """Exit statuses of ``count`` processes that call ``work`` with their number at one moment."""
    ready = FORK.Barrier(count)

    def one(number: int) -> None:
        ready.wait(60)
        work(number)

    processes = [FORK.Process(target=one, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def write_folder(path: Path, number: int) -> None:
    with replace_folder(path) as folder:
        for name in "abc":
            (folder / name).write_text(str(number))


def trace_of(number: int) -> Trace:
    events = np.full((50, 2), number, np.int64)
    return Trace(events, np.arange(3), np.arange(3), (Mark(0, "load"),), number, (1, 1), None)


@pytest.mark.fault
def test_sixteen_writers_of_one_file_all_succeed_and_its_content_is_one_of_theirs(tmp_path):
    begun, path = time.monotonic(), tmp_path / "traces/known.json"
    for _ in range(ROUNDS):
        statuses = at_once(WRITERS, lambda number: write_json(path, {"from": [number] * 5000}))
        assert statuses == [0] * WRITERS
        assert len(set(json.loads(path.read_text())["from"])) == 1 and not hidden(path.parent)
    seen = "nothing: each writes a file of its own, which takes the place of the one"
    survived("16 writers of one file", "local", seen=seen, seconds=time.monotonic() - begun, repeated=None, same="whole")


def test_many_processes_save_one_study_and_one_trace(tmp_path, demo_study):
    for name, write in {
        "study.json": lambda number: save_study(tmp_path / "study.json", "s", demo_study),
        "trace.npz": lambda number: _save(tmp_path / "trace.npz", trace_of(number)),
    }.items():
        assert at_once(WRITERS, write) == [0] * WRITERS, name
    assert json.loads((tmp_path / "study.json").read_text())["name"] == "s"
    found = _load(tmp_path / "trace.npz")
    assert (found.events == found.existing).all() and not hidden(tmp_path)


def test_many_writers_of_one_folder_all_succeed_and_it_is_one_of_theirs(tmp_path):
    path = tmp_path / "made"
    for _ in range(ROUNDS):
        assert at_once(WRITERS, partial(write_folder, path)) == [0] * WRITERS
        assert len({(path / name).read_text() for name in "abc"}) == 1 and not hidden(tmp_path)


def test_a_second_writer_of_a_folder_leaves_the_first_one_s_alone(tmp_path):
    path = tmp_path / "made"
    with replace_folder(path) as first:
        (first / "a").write_text("first")
        write_folder(path, 2)
        assert (path / "a").read_text() == "2"
        (first / "b").write_text("first")
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "first", "b": "first"} and not hidden(tmp_path)


def test_what_is_unchanged_is_not_written(tmp_path):
    """The same inode and time: whoever looks at these sees no change."""
    path = tmp_path / "file.json"
    write_json(path, [1])
    os.utime(path, (1, 1))
    before = path.stat()
    write_json(path, [1])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_json(path, [2])
    assert path.stat().st_ino != before.st_ino and json.loads(path.read_text()) == [2]


def test_what_killed_writers_left_is_removed_in_time_and_what_others_write_now_is_not(tmp_path):
    path, old = tmp_path / "f[1].json", time.time() - LEFT_SECONDS - 60
    with replacing(path) as young, replacing(path) as left, replacing(tmp_path / "g.json") as other:
        for file in (left, other):
            os.utime(file, (old, old))
        folder = left.with_name(left.name.replace("-", "-0"))
        (folder / "inner").mkdir(parents=True)
        for each in (folder / "inner", folder):
            os.utime(each, (old, old))
        write_bytes(path, b"1")
        assert (young.exists(), left.exists(), folder.exists(), other.exists()) == (True, False, False, True)
        left.touch()  # so that its end finds it


def fill_until_killed(path: Path, resume: bool) -> None:
    with replace_folder(path, resume) as folder:
        (folder / "done").touch()
        time.sleep(60)


def killed_while_it_fills(path: Path, resume: bool) -> None:
    process = FORK.Process(target=fill_until_killed, args=(path, resume))
    process.start()
    while process.is_alive() and not list(path.parent.glob(f".{path.name}.*tmp/done")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_killed_filling_is_begun_anew_or_gone_on_with_and_leaves_nothing(tmp_path):
    path = tmp_path / "made"
    for resume in (False, True):
        killed_while_it_fills(path, resume)
        with replace_folder(path, resume) as folder:
            assert (folder / "done").exists() == resume
        assert path.is_dir() and not hidden(tmp_path)


def test_a_filling_that_fails_leaves_what_can_be_gone_on_with_alone(tmp_path):
    path = tmp_path / "made"
    for resume in (False, True):
        with pytest.raises(OSError, match="broken"), replace_folder(path, resume) as folder:
            (folder / "done").touch()
            raise OSError("broken")
        assert bool(hidden(tmp_path)) == resume and not path.exists()


def test_a_process_that_goes_on_with_a_folder_waits_for_the_one_that_fills_it(tmp_path, caplog):
    path, order = tmp_path / "made", []

    def second() -> None:
        with replace_folder(path, resume=True):
            order.append("second")

    with replace_folder(path, resume=True):
        thread = threading.Thread(target=second)
        thread.start()
        while "waiting for the process that holds" not in caplog.text and thread.is_alive():
            time.sleep(0.01)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"] and path.is_dir() and not hidden(tmp_path)


def test_a_folder_that_many_remove_at_once_is_gone_and_nobody_fails(tmp_path):
    path = tmp_path / "old"
    for _ in range(ROUNDS):
        for number in range(100):
            (path / str(number)).mkdir(parents=True)
            (path / str(number) / "file").touch()
        assert at_once(4, lambda number: remove_folder(path)) == [0] * 4 and not path.exists()
