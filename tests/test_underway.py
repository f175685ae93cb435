"""Steps whose numbers are read while later ones are computed, as on a GPU: nothing that a run leaves may differ."""

import torch
from test_training import finish, folders, fresh_accelerate, same, saved, setup  # noqa: F401

from ablation import leave
from ablation.training.underway import Reading, Underway

LATE = 1  # as on a GPU, where one step is under way while the next is prepared


def poison(trainer, at: int) -> None:
    """The loss of step ``at`` is NaN."""
    original, calls = trainer.system.objective, []

    def poisoned(model, batch, name):
        calls.append(name)
        objective = original(model, batch, name)
        return objective._replace(loss=objective.loss * (float("nan") if len(calls) == at else 1))

    trainer.system.objective = poisoned


def full(trainer, at: int) -> None:
    """Step ``at`` runs out of memory."""
    original, calls = trainer.system.objective, []

    def failing(model, batch, name):
        calls.append(name)
        if len(calls) == at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(model, batch, name)

    trainer.system.objective = failing


def rows(trainer) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in trainer.history.rows]


def test_a_run_that_is_read_late_ends_bitwise_equal(setup):
    (at_once, of_once), late = (
        finish(setup("once", training={"preview_every": 3})),
        setup("late", training={"preview_every": 3}),
    )
    late.behind = LATE
    found, of_late = finish(late)
    assert same(found, at_once) and of_late == of_once and same(saved(setup, "late"), saved(setup, "once"))
    for kept in ("state/step-00000004", "previews/step-00000003"):
        assert (setup.root / "once" / kept).is_dir() and (setup.root / "late" / kept).is_dir()
    assert (setup.root / "late/history.csv").exists() == (setup.root / "once/history.csv").exists()
    assert len(late.clock.seconds) == 6 and all(row["seconds"] > 0 for row in late.history.rows)


def test_numbers_are_read_while_the_next_step_is_under_way(setup):
    trainer, seen = setup("run", training={"checkpoint_every": 100}), []
    trainer.behind, original = LATE, trainer._step
    trainer._step = lambda step, batches: (original(step, batches), seen.append(len(trainer.history.rows)))[0]
    finish(trainer)
    assert seen == [0, 0, 1, 2, 3, 4] and len(trainer.history.rows) == 6


def test_a_nan_ends_the_run_at_its_own_step_and_is_in_no_checkpoint(setup):
    ends = {}
    for name, behind in (("once", 0), ("late", LATE)):
        for step in (3, 4, 6):  # before a checkpoint, just before one, at the end
            trainer = setup(f"{name}-{step}")
            trainer.behind = behind
            poison(trainer, step)
            assert trainer.train() == "diverged"
            left = sorted(path.name for path in (setup.root / f"{name}-{step}/state").glob("step-*"))
            ends[name, step] = rows(trainer), trainer.record()["diagnoses"], left
            assert len(trainer.history.rows) == step - 1 and trainer.diagnoses[0].step == step
            trainer.meter.report()  # which ends its count
    assert all(ends["once", step] == ends["late", step] for step in (3, 4, 6))


def test_the_first_failure_is_the_one_that_is_told(setup):
    """Memory that runs out in the step after a NaN is no outcome: at once, that step would not have been taken."""
    trainer = setup("both")
    trainer.behind = LATE
    poison(trainer, 3)
    full(trainer, 4)
    assert trainer.train() == "diverged" and trainer.diagnoses[0].step == 3
    trainer.meter.report()
    alone = setup("alone", training={"checkpoint_every": 100})
    alone.behind = LATE
    full(alone, 4)
    try:
        alone.train()
    except torch.OutOfMemoryError:
        assert alone.step == 4 and len(alone.history.rows) == 3  # all that was computed is kept
    else:
        raise AssertionError("it went on")


def test_a_signal_is_heard_and_nothing_stays_under_way(setup, monkeypatch):
    trainer = setup("run", training={"checkpoint_every": 100, "steps": 6})
    trainer.behind = LATE
    original = trainer._step

    def signalled(step, batches):
        if step == 2:
            monkeypatch.setattr(leave, "asked", lambda: "SIGTERM")
        return original(step, batches)

    trainer._step = signalled
    assert trainer.train() == "preempted"
    assert len(trainer.history.rows) == 4 and (setup.root / "run/state/step-00000004").is_dir()
    monkeypatch.setattr(leave, "asked", lambda: None)
    trainer.meter.report()
    whole, (found, again) = finish(setup("whole", training={"checkpoint_every": 100})), finish(setup("run"))
    assert same(found, whole[0]) and len(again) == len(whole[1])


def test_numbers_on_a_cpu_are_there_at_once():
    row, leaves = Underway(4, {"step": 5}, ("loss", "grad_norm"), Reading(torch.tensor([1.5, 2.0, 0.25]))).row(0.1234567)
    assert row == {"step": 5, "loss": 1.5, "grad_norm": 2.0, "seconds": 0.123457} and leaves
