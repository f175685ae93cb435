"""Predicting the memory of runs: exact where it can be checked without a GPU, and one verdict for each."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from allocations import peak_of_step
from conftest import ROOT, STUDY
from faults import survived

from ablation.errors import UserError
from ablation.hardware import Card, load_card
from ablation.preflight import plan
from ablation.study import Train, load_study
from ablation.sweep import Run, expand
from ablation.systems.vggt.system import System
from ablation.vram import step as step_module
from ablation.vram.budget import CONTEXT_GIB
from ablation.vram.margin import MARGIN
from ablation.vram.predict import Predictor, largest_batch, verdict
from ablation.vram.replay import allocated_peak, replay
from ablation.vram.step import check_patterns, trace_step, trace_step_on_cpu
from ablation.vram.trace import Trace
from ablation.vram.traces import Traces, family

ADA = "8.9"
TINY = {
    "image_size": 28, "embed_dim": 32, "depth": 4, "heads": 2, "vit": {"depth": 1, "heads": 2},
    "camera": {"depth": 1, "heads": 2}, "dpt": {"features": 16, "channels": [8, 8, 8, 8], "layers": [0, 1, 2, 3]},
}  # fmt: skip


def runs(**sweep) -> list[Run]:
    """Runs of the demo study."""
    strategies = {"full": {"train": {"full": ["depth_head"]}, "lr": 1e-4}}
    return expand(load_study(STUDY, {"sweep": {"seed": 0, **sweep}, "strategies": strategies}), "demo")


def planned(gib: float, **changes) -> list[dict]:
    """The plan of the demo study's strategy A at rank 4 on a card with ``gib`` for the allocator."""
    study = load_study(STUDY, {"sweep": {"strategy": "A", "rank": 4, "seed": 0}, **changes})
    return plan(study, "demo", card(gib))[0]


def small_runs(strategy: str = "A", **sweep) -> list[Run]:
    """Runs of a tiny network on small images."""
    changes = {"model": {"architecture": TINY}, "data": {"resolution": [28, 42], "frames": 2}}
    return expand(load_study(STUDY, {**changes, "sweep": {"strategy": strategy, "seed": 0, **sweep}}), "tiny")


def card(gib: float) -> Card:
    """A card with ``gib`` for PyTorch's allocator."""
    return load_card("rtx4090", ROOT / "config/hardware").model_copy(update={"usable_gib": gib + CONTEXT_GIB})


@pytest.mark.parametrize(
    ("strategy", "precision", "accumulation"),
    [("A", "fp32", 1), ("B", "bf16", 2), ("C", "fp32", 2), ("C", "bf16", 3), ("C", "fp16", 1), ("full", "bf16", 1)],
)
def test_the_traced_step_is_the_real_step(strategy, precision, accumulation):
    """Within 0.5 % of what torch's profiler sees the demo's networks allocate on a CPU (measured: 0.05 %)."""
    (run,) = runs(strategy=strategy, precision=precision, accumulation=accumulation, rank=16)
    assert allocated_peak(trace_step_on_cpu(run)) == pytest.approx(peak_of_step(run), rel=0.005)


def test_sizes_between_traces_are_exact():
    """A batch and a rank that were computed are, storage by storage, what a trace of them is."""
    wanted = small_runs("C", batch=[2, 3, 7], rank=[2, 3, 11], precision="bf16")
    traces = Traces(wanted, ADA)
    computed = [traces[run] for run in wanted]
    assert traces.traced == 4  # two batches, two ranks
    for index in (5, 7, 8):
        traced = trace_step(wanted[index], ADA)
        assert np.array_equal(computed[index].sizes, traced.sizes)
        assert np.array_equal(computed[index].events, traced.events)
        assert computed[index].parameters == traced.parameters


def test_allocated_memory_is_affine_in_depth():
    def peak(depth: int) -> int:
        changes = {**TINY, "depth": depth}
        study = load_study(STUDY, {"model": {"architecture": changes}, "sweep": {"strategy": "A", "seed": 0}})
        return allocated_peak(trace_step(expand(study, "deep")[0], ADA))

    five, six, ten = map(peak, (5, 6, 10))
    assert ten - five == 5 * (six - five) > 0


def test_ten_thousand_runs_cost_a_handful_of_traces():
    many = small_runs(batch=list(range(1, 11)), rank=list(range(1, 11)), accumulation=[1, 2, 4], seed=list(range(33)))
    predictor = Predictor(many, card(23.1))
    assert len(many) == 9_900
    found = {run.id: predictor(run).allocated for run in many[::33]}
    assert predictor.traces.traced == 2 * 2 * 3  # once and more often accumulated; two ranks; batches 1, 2 and 3
    assert len(set(found.values())) == 2 * 100, "every batch and rank has its own, one more for accumulation"


ALIKE = [{"title": "x"}, {"compute": {"threads": 3}}, {"evaluation": {"alignment": "none"}}, {"training": {"steps": 3}}]
OTHERS = [{"loss": {"window_weight": 2.0}}, {"data": {"frames": 3}}, {"training": {"ema": 0.9}}, {"lora": {"dropout": 0.0}}]


@pytest.mark.parametrize(("change", "same"), [*((change, True) for change in ALIKE), *((change, False) for change in OTHERS)])
def test_runs_are_a_family_if_their_steps_are_alike(change, same):
    found = [family(expand(load_study(STUDY, {**changes, "sweep": {"seed": 0}}), "demo")[0]) for changes in ({}, change)]
    assert (found[0] == found[1]) == same


def test_traces_made_side_by_side_are_the_same(tmp_path):
    wanted = small_runs(batch=[1, 2, 3, 7], rank=2)
    alone, together = Traces(wanted, ADA), Traces(wanted, ADA, tmp_path)
    together.prepare(workers=2)
    assert together.traced == 3  # batches 1, 2 and 3
    for run in wanted:
        assert np.array_equal(alone[run].sizes, together[run].sizes)
    assert alone.traced == together.traced == 3


def test_patterns_are_checked_before_anything_is_traced(tmp_path):
    right, wrong = small_runs(rank=[2, 4]), small_runs("C", rank=2)
    strategy = wrong[0].strategy.model_copy(update={"train": Train(lora=["depth_haed"])})
    for workers in (1, 2):
        traces = Traces([*right, replace(wrong[0], strategy=strategy)], ADA, tmp_path)
        with pytest.raises(UserError, match=r"`depth_haed` matches no .*did you mean depth_head"):
            traces.prepare(workers)
        assert traces.traced == 0 and not list(tmp_path.iterdir())
    host = wrong[0].strategy.model_copy(update={"host": ["agregator"]})
    with pytest.raises(UserError, match=r"host: the pattern `agregator` matches no .*did you mean aggregator"):
        check_patterns([replace(wrong[0], strategy=host)])


class Unsendable:
    """Cannot go to another process, as what is changed meanwhile cannot."""

    def __reduce__(self):
        raise RuntimeError("sent to a worker")


def test_workers_are_sent_nothing_that_changes_while_it_is_sent():
    """What is traced grows while the pool still pickles what its workers are to do."""
    wanted = small_runs(batch=[1, 2, 3, 7], rank=2)
    traces = Traces(wanted, ADA)
    traces._known["of an earlier trace"] = Unsendable()
    traces.prepare(workers=2)
    assert traces.traced == 3 and all(isinstance(traces[run], Trace) for run in wanted)


def test_many_traces_side_by_side(tmp_path, monkeypatch):
    """Far more than the pool has places for, each of some size: only the tracing itself is replaced."""
    wanted = small_runs(rank=2)
    one = Traces(wanted, ADA)[wanted[0]]
    larger = replace(one, events=np.tile(one.events, 200))
    monkeypatch.setattr(Traces, "_traced", lambda self, run, point: larger)
    traces = Traces(small_runs(batch=1, rank=2, **{"loss.window_weight": [1 + i / 100 for i in range(60)]}), ADA)
    traces.prepare(workers=4)
    assert len(traces._known) == 60


def test_what_was_traced_before_is_told(tmp_path, capsys):
    Traces(small_runs(batch=[1, 2, 3, 7], rank=2), ADA, tmp_path).prepare(workers=1)
    assert capsys.readouterr().err.startswith("tracing 3 steps\n")
    more = small_runs(batch=[1, 2, 3, 7], rank=2, precision=["bf16", "fp32"])
    Traces(more, ADA, tmp_path).prepare(workers=2)
    assert capsys.readouterr().err.startswith("3 of 6 steps traced already, tracing 3 steps in 2 processes\n")
    Traces(more, ADA, tmp_path).prepare(workers=2)
    assert capsys.readouterr().err == ""


@pytest.mark.fault
def test_a_tracing_process_is_killed(tmp_path, monkeypatch):
    """As the kernel does where memory is short: one line, and the next start goes on from what there is."""
    wanted = small_runs(batch=[1, 2, 3, 7], rank=2)
    original, main = Traces._traced, os.getpid()

    def struck(self, run, point):
        if os.getpid() != main and point.batch == 3:
            while not list(tmp_path.glob("[!.]*.npz")):  # something is traced by then
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, run, point)

    monkeypatch.setattr(Traces, "_traced", struck)
    started = time.monotonic()
    with pytest.raises(UserError) as raised:
        Traces(wanted, ADA, tmp_path).prepare(workers=2)
    assert "was killed" in str(raised.value) and f"kept in {tmp_path}" in str(raised.value)
    monkeypatch.setattr(Traces, "_traced", original)
    kept = len(list(tmp_path.glob("[!.]*.npz")))
    again, alone = Traces(wanted, ADA, tmp_path), Traces(wanted, ADA)
    again.prepare(workers=2)
    assert kept and again.traced == 3 - kept
    assert all(np.array_equal(again[run].sizes, alone[run].sizes) for run in wanted)
    seen = "one line: killed, most likely for want of memory; what is traced is kept, and the next start says how much"
    ended = time.monotonic() - started
    survived("a tracing process is killed", "local", seen=seen, seconds=ended, repeated=None, same="the same traces")


def test_a_folder_keeps_traces(tmp_path):
    wanted = small_runs(rank=4)
    first, second = (Traces(wanted, ADA, tmp_path) for _ in range(2))
    original, kept = first[wanted[0]], second[wanted[0]]
    assert (first.traced, second.traced) == (1, 0)
    assert replay(original) == replay(kept) and original.parameters == kept.parameters


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_trace_that_was_cut_short_is_made_again(tmp_path, keep):
    wanted = small_runs(rank=4)
    whole = Traces(wanted, ADA, tmp_path)[wanted[0]]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    again = Traces(wanted, ADA, tmp_path)
    assert np.array_equal(again[wanted[0]].sizes, whole.sizes) and again.traced == 1


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_the_parts_are_the_whole(precision):
    (run,) = small_runs(rank=4, precision=precision)
    found = Predictor([run], card(23.1))(run)
    assert sum(found.parts.values()) == pytest.approx(found.total) and min(found.parts.values()) >= 0
    assert found.allocated <= found.reserved < found.total and found.verdict == "fits"


def test_what_costs_more_is_predicted_to():
    def needed(checkpointing: bool = True, **sweep) -> float:
        changes = {
            "model": {"architecture": TINY},
            "data": {"resolution": [28, 42], "frames": 2},
            "strategies": {"C": {"gradient_checkpointing": checkpointing}},
        }
        axes = {"strategy": "C", "rank": 4, "batch": 2, "precision": "bf16", "seed": 0, **sweep}
        (run,) = expand(load_study(STUDY, {**changes, "sweep": axes}), "tiny")
        return Predictor([run], card(23.1))(run).allocated

    base = needed()
    assert base < needed(rank=64) and base < needed(batch=3) and base < needed(precision="fp32")
    assert base < needed(accumulation=2)  # gradients stay while the next batch goes forward
    assert base < needed(checkpointing=False)


def test_verdicts():
    """``tight`` within the margin around the budget, ``fits`` below it and ``oom`` above."""
    size = 100 * 2**21
    trace = Trace(np.array([1, 2, -2], np.int32), np.array([size - 10 * 2**21, 10 * 2**21]), np.zeros(2, np.uint8), (), 1)

    def at(share: float) -> str:
        return verdict(trace, replay(trace), size * share)

    assert [at(1 + 2 * MARGIN), at(1 + MARGIN / 2), at(1 - MARGIN / 2), at(1 - 2 * MARGIN)] == ["fits", "tight", "tight", "oom"]


def test_largest_batch():
    (run,) = small_runs(rank=4)
    some = card(0.15)
    batch = largest_batch(run, some)
    assert batch > 1

    def holds(size: int) -> bool:
        larger = run.with_axes(batch=size)
        return Predictor([larger], some)(larger).verdict != "oom"

    assert holds(batch) and not holds(batch + 1)
    assert largest_batch(run, card(0.0001)) == 0


def test_a_step_that_cannot_be_traced_is_one_clear_error(monkeypatch):
    class Looks(System):
        def objective(self, model, batch, name):
            assert batch["depths"].max().item() > 0
            return super().objective(model, batch, name)

    monkeypatch.setattr(step_module, "load_system", Looks)
    (run,) = small_runs(rank=4)
    with pytest.raises(UserError, match=r"system vggt cannot be predicted(?s:.*)must not read values back"):
        trace_step(run, ADA)
    rows = planned(23.1)
    assert rows[0]["verdict"] == "invalid" and "cannot be predicted" in rows[0]["reason"]


@pytest.mark.parametrize(
    ("train", "why"),
    [
        ({"full": ["point_head"]}, "trains point_head: nothing that the strategy trains takes part in the loss"),
        ({"lora": ["point_head.projects"]}, "trains point_head.projects: nothing that the strategy trains takes part"),
        ({"full": ["depth_head.scratch", "point_head"]}, "nothing of `point_head` takes part in the loss; take it out"),
        ({"full": ["depth_head.scratch"], "fused": True}, None),
        ({"lora": ["depth_head", "aggregator.global_blocks.2-3"]}, None),
    ],
)
def test_a_strategy_that_takes_no_part_in_the_loss_is_refused_with_that_reason(train, why):
    fused = {"fused_backward": True} if train.pop("fused", False) else {}
    strategies = {"Z": {"train": train, "lr": 1e-4, **fused}}
    sweep = {"strategy": "Z", "rank": 4, "seed": 0, "accumulation": 1}
    changes = {"strategies": strategies, "baseline": None, "claims": None, "training": {"clip": None}}
    rows = planned(23.1, **changes, sweep=sweep)
    if why is None:
        assert rows[0]["verdict"] == "fits"
    else:
        assert (
            rows[0]["verdict"] == "invalid"
            and rows[0]["reason"].startswith("untrainable: strategy Z")
            and why in rows[0]["reason"]
        )
        assert "cannot be predicted" not in rows[0]["reason"]


def test_a_step_that_cannot_be_traced_is_tried_once(monkeypatch):
    tried = []

    class Builds(System):
        def build(self):
            tried.append(True)
            return super().build().register_buffer("share", torch.linspace(0, 1, 4)[1].item())

    monkeypatch.setattr(step_module, "load_system", Builds)
    wanted = small_runs(rank=4, seed=[0, 1, 2])
    predictor = Predictor(wanted, card(23.1))
    for run in wanted:
        with pytest.raises(UserError, match="cannot be predicted"):
            predictor(run)
    assert len(tried) == 1


def test_a_card_smaller_than_the_weights():
    rows = planned(0.001 - CONTEXT_GIB)
    assert rows[0]["verdict"] == "oom" and "its weights alone take 0.01 of 0.001 GiB" in rows[0]["reason"]


def test_the_plan_holds_the_prediction_and_its_parts():
    for row in planned(23.1):
        parts = [name for name in row if name.endswith("_gib") and not name.startswith(("predicted", "budget"))]
        assert sum(row[part] for part in parts) == pytest.approx(row["predicted_gib"], abs=0.001)
        assert row["budget_gib"] == pytest.approx(23.6) and row["memory_verdict"] == row["verdict"] == "fits"
        assert row["peak_phase"] in ("forward", "backward", "optimizer")


def test_the_plan_says_which_cards_would_do():
    """A row a cell and card, whatever the seeds. On the study's own card it is the plan's verdict."""
    study = load_study(STUDY, {"sweep": {"strategy": "A", "rank": 4, "batch": [1, 2], "seed": [0, 1]}})
    need = 0.97 * planned(23.1)[0]["predicted_reserved_gib"]  # a little less than the allocator would take
    cards = {"own": card(need), "none": card(need / 2), "large": card(need * 2)}
    found = plan(study, "demo", cards["own"], cards=cards)
    assert [(row["batch"], row["card"]) for row in found.cards] == [(batch, name) for batch in (1, 2) for name in cards]
    assert [row["verdict"] for row in found.cards[3:]] == ["tight", "oom", "fits"]
    verdicts = {row["cell"]: row["verdict"] for row in found.cards if row["card"] == "own"}
    assert [verdicts[run.cell_id] for run in expand(study, "demo")] == [row["memory_verdict"] for row in found.runs]
    assert {"seed"}.isdisjoint(found.cards[0]) and found.cards[0]["budget_gib"] == cards["own"].usable_gib


def test_the_matrix_of_cells_and_cards():
    from plan_study import on_cards

    rows = [{"cell": f"{cell}-0123abcd", "card": name, "verdict": verdict} for cell, name, verdict in (
        ("A-b1x8", "rtx4090", "fits"), ("A-b1x8", "h100", "fits"), ("A-b32x1", "rtx4090", "oom"), ("A-b32x1", "h100", "tight"),
    )]  # fmt: skip
    assert on_cards(rows).splitlines() == ["           rtx4090  h100", "  A-b1x8   fits     fits", "  A-b32x1  oom      tight"]
    assert on_cards(rows[:2]) == "every cell fits rtx4090, h100" and on_cards([]) == ""
    many = [{**row, "cell": f"A-{number}-0"} for number in range(30) for row in rows[2:]]
    assert len(on_cards(many).splitlines()) == 22 and "10 more cells in cards.csv" in on_cards(many)
