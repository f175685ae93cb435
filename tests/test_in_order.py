"""Frees are put in order within a phase, never from one phase into the next."""

import numpy as np

from ablation.vram.trace import in_order


def test_no_free_is_moved_over_a_mark():
    events = np.array([1, 2, 3, -3, -1, -2], np.int32)
    assert in_order(events).tolist() == [1, 2, 3, -1, -2, -3]
    assert in_order(events, [5]).tolist() == [1, 2, 3, -1, -3, -2]
    assert in_order(events, [6]).tolist() == in_order(events).tolist()  # a mark after the last event


def test_nothing_to_order():
    assert in_order(np.array([], np.int32), [0]).tolist() == []
