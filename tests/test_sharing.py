"""Jobs that share cards: never more on one than it has, each in its turn, and what a dead job held is free."""

import fcntl
import multiprocessing
import os
import random
import signal
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation import gpus, sharing
from ablation.gpus import Share
from ablation.sharing import Queue

CARDS, CARD = ["a", "b", "c"], 8
WANTS = st.tuples(
    st.sets(st.sampled_from(CARDS), min_size=1).map(sorted), st.integers(1, 3), st.none() | st.integers(1, CARD)
).map(lambda wants: (wants[0], min(wants[1], len(wants[0])), wants[2]))
EVENTS = st.lists(st.tuples(st.sampled_from(["come", "ask", "ask", "go"]), WANTS, st.integers(0, 99)), max_size=30)


@settings(max_examples=150)
@given(EVENTS)
def test_no_card_is_given_beyond_what_it_has_and_nobody_is_passed_over(events):
    with TemporaryDirectory() as folder:
        waiting, holding = [], {}

        def ask(queue):
            held = queue.ask()
            if held is None:
                return
            waiting.remove(queue)
            passed = [other for other in waiting if other.path < queue.path and set(other.wants.cards) & set(held)]
            assert not passed and len(held) == queue.count and set(held) <= set(queue.wants.cards)
            holding[queue] = held
            for card in held:
                parts = [CARD if other.wants.mib is None else other.wants.mib for other, on in holding.items() if card in on]
                assert sum(parts) <= CARD
                assert all(other.most() >= len(parts) for other, on in holding.items() if card in on)

        for event, (cards, count, mib), which in events:
            if event == "come":
                waiting.append(Queue(Path(folder), cards, count, mib, CARD))
            elif event == "ask" and waiting:
                ask(waiting[which % len(waiting)])
            elif event == "go" and (waiting or holding):
                queue = [*waiting, *holding][which % (len(waiting) + len(holding))]
                queue.leave()
                holding.pop(queue, None) or waiting.remove(queue)
        while waiting or holding:  # those that came first hold some now, or will when these have gone
            for queue in list(holding):
                queue.leave()
                del holding[queue]
            before = len(waiting)
            for queue in list(waiting):
                ask(queue)
            assert len(waiting) < before or not before


def test_one_that_waits_for_the_whole_card_comes_before_those_that_came_later(tmp_path):
    first, whole, small = Queue(tmp_path, ["a"], 1, 2, CARD), Queue(tmp_path, ["a"], 1), Queue(tmp_path, ["a"], 1, 2, CARD)
    assert first.ask() == ["a"] and whole.ask() is None and small.ask() is None
    first.leave()
    assert small.ask() is None and whole.ask() == ["a"]
    whole.leave()
    assert small.ask() == ["a"] and (first.path.exists(), small.most()) == (False, 1)
    small.leave()


def test_one_that_is_stopped_while_it_waits_keeps_nobody_from_a_free_card(tmp_path, monkeypatch):
    holder, stopped = Queue(tmp_path, ["a"], 1), Queue(tmp_path, ["a"], 1)
    assert holder.ask() and stopped.ask() is None
    holder.leave()
    late = Queue(tmp_path, ["a"], 1)
    assert late.ask() is None
    os.utime(stopped.path, (time.time() - sharing.SILENT_SECONDS - 1,) * 2)
    assert late.ask() == ["a"] and stopped.ask() is None
    late.leave()
    assert stopped.ask() == ["a"]
    stopped.leave()


def test_each_card_has_its_own_and_the_emptier_one_is_taken(tmp_path):
    queues = [Queue(tmp_path, ["a", "b"], 1, 4, CARD) for _ in range(4)]
    assert [queue.ask() for queue in queues] == [["a"], ["b"], ["a"], ["b"]]
    assert [queue.most() for queue in queues] == [2] * 4
    for queue in queues:
        queue.leave()


# --- processes -------------------------------------------------------------------------------------------------------


def _share(folder, mib, rounds, failed):
    """Take a share again and again. Locks of their own, a file a MiB, would tell of one MiB that two have."""
    drawn = random.Random(os.getpid())
    units = [os.open(folder / f"unit-{card}-{i}", os.O_CREAT | os.O_RDWR) for card in "01" for i in range(CARD)]
    for _ in range(rounds):
        with gpus.lease_gpus(1, folder / "locks", Share(mib, CARD)) as held:
            card = units[CARD * int(held.gpus[0]) :][:CARD]
            drawn.shuffle(card)
            taken = list(islice(filter(_mine, card), mib))
            if len(taken) < mib:
                failed.touch()
            time.sleep(drawn.uniform(0, 0.02))
            for unit in card:
                fcntl.flock(unit, fcntl.LOCK_UN)


def _mine(unit):
    try:
        fcntl.flock(unit, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.01)


def test_processes_that_are_killed_at_any_moment_leave_cards_that_are_never_full_beyond_their_memory(tmp_path, two_gpus):
    failed, fork, drawn = tmp_path / "failed", multiprocessing.get_context("fork"), random.Random(0)

    def start(rounds):
        process = fork.Process(target=_share, args=(tmp_path, drawn.randint(1, CARD), rounds, failed))
        process.start()
        return process

    jobs = [start(1000) for _ in range(5)]
    for i in range(15):
        time.sleep(drawn.uniform(0, 0.1))
        os.kill(jobs[i % 5].pid, signal.SIGKILL)
        jobs[i % 5].join()
        jobs[i % 5] = start(1000)
    for job in jobs:
        job.kill()
        job.join()
    last = [start(3) for _ in range(5)]  # each gets its turns, whatever the killed have left
    for job in last:
        job.join(60)
        assert job.exitcode == 0
    assert not failed.exists()


def test_a_share_is_held_beside_others_and_a_whole_card_is_not(tmp_path, two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with gpus.lease_gpus(1, tmp_path, Share(5, CARD)) as one:
        with gpus.lease_gpus(1, tmp_path, Share(3, CARD)) as two:
            assert one.gpus == two.gpus == ["1"] and two.share == (3, CARD) and one.most() == 2
        monkeypatch.setattr(gpus.leave, "_asked", ["SIGTERM"])
        for more in (Share(4, CARD), None):
            with pytest.raises(gpus.leave.Left), gpus.lease_gpus(1, tmp_path, more):
                pass
        assert one.most() == 2


def test_what_a_card_has_is_what_its_study_says_where_nothing_else_does(two_gpus, monkeypatch):
    assert gpus.card_mib(23.64) == 24207
    monkeypatch.setattr(gpus.nvml, "usable_bytes", {"0": 40 * 2**30, "1": 24 * 2**30 + 5}.get)
    assert gpus.card_mib(23.64) == 24 * 1024
