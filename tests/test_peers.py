"""benchmarks/peers.py: what it refuses, and that a step of ours is the same again; the authors' code is the user's."""

import sys

import pytest
from authors import opened
from peers import check_same, commit_of
from peers_sides import CASES, Side, ours, prepare

from ablation.errors import UserError


def test_what_is_no_checkout_is_named_in_a_line(tmp_path):
    with pytest.raises(UserError, match=r"is no checkout of thu-ml/\w+: it lacks models/rdt_runner.py$"):
        opened("rdt", tmp_path)


def test_a_package_that_is_missing_is_named_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    for name in ("models/rdt_runner.py", "models/rdt/model.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import no_such_package_anywhere.within\n")
    with pytest.raises(UserError, match=r"imports no_such_package_anywhere, which is not installed$"):
        opened("rdt", tmp_path)


def test_another_training_is_not_compared():
    values = {"authors": {"loss": 2.0, "gradient norm": 1.0}, "ours": {"loss": 2.0001, "gradient norm": 1.0}}
    check_same(values)
    for wrong in (1.0002, float("nan")):
        with pytest.raises(UserError, match="not the same training: gradient norm is"):
            check_same({**values, "ours": {"loss": 2.0, "gradient norm": wrong}})


def test_a_folder_that_git_does_not_know_needs_its_commit(tmp_path):
    assert commit_of(tmp_path, "abc1234") == "abc1234"
    with pytest.raises(UserError, match="--commit"):
        commit_of(tmp_path, None)


@pytest.mark.parametrize("recomputed", [0, 1])
def test_a_step_of_ours_is_the_same_again(tmp_path, recomputed):
    """Recomputed or not. Whether theirs is the same is asked by the benchmark itself."""
    case = CASES["hunyuan3d"][recomputed]
    prepare(case, tmp_path)
    first = [Side(ours(case, tmp_path), tmp_path).first() for _ in range(2)]
    check_same({"authors": first[0], "ours": first[1]})
    assert first[0] == first[1] and first[0]["gradient norm"] > 0
