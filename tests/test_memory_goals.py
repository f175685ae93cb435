"""The goals for memory at the released sizes hold, by prediction: benchmarks/memory_goals.py prints what they were, too."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from memory_goals import GOALS, predicted


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.what)
def test_the_goal_is_kept(goal):
    assert predicted(goal, lean=True) <= goal.gib
