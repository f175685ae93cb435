"""The parts of training that need no model: guards, checkpoints, the average, patterns, schedules, the order of the data."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Barrier

import numpy as np
import pytest
import torch
from diffusers.optimization import get_scheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ablation.errors import UserError
from ablation.settings import Guards, Training
from ablation.systems.base import Draw
from ablation.training import guards, order
from ablation.training.average import Average
from ablation.training.checkpoints import Checkpoints
from ablation.training.processes import Place
from ablation.training.randomness import make_deterministic
from ablation.training.schedules import learning_rate
from ablation.training.targets import adaptable_modules, modules

# --- determinism -----------------------------------------------------------------------------------------------------


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    filled = torch.utils.deterministic.fill_uninitialized_memory
    make_deterministic()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def test_determinism_fills_no_memory_that_is_new(deterministic):
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.empty(64).resize_(1 << 16).isnan().all(), "torch fills it with NaN"


# --- guards and checkpoints ------------------------------------------------------------------------------------------


def test_guards():
    falling, flat = [2 - 0.01 * i for i in range(100)], [1.95] * 100
    assert guards.check_stuck(falling, Guards()) is None and "pretrained weights" in guards.check_stuck(flat, Guards()).remedy
    assert guards.check_finite(1, {"loss": 1.0, "grad_norm": math.inf}, scaled=True) is None
    assert guards.check_finite(1, {"loss": 1.0, "grad_norm": math.inf}, scaled=False).name == "non-finite gradient"
    assert guards.check_finite(1, {"loss": math.nan}, scaled=True).name == "non-finite loss"
    assert guards.check_scaler([math.inf] * 20, 20).name == "loss scale collapse"
    assert guards.check_scaler([math.inf] * 19 + [1.0], 20) is None


def test_unreadable_checkpoints_are_named_and_the_one_before_is_used(tmp_path):
    complaints = []
    checkpoints = Checkpoints(tmp_path, "mine", keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, {"step": step, "x": torch.ones(4)}, {"random": step})
    state = tmp_path / "step-00000003/state.pt"
    state.write_bytes(state.read_bytes()[:-20])
    assert checkpoints.latest(complaints.append)["step"] == 2
    (tmp_path / "step-00000002/DONE").unlink()
    assert checkpoints.latest(complaints.append)["step"] == 1
    assert "damaged" in complaints[0] and "incomplete" in complaints[-1]
    assert Checkpoints(tmp_path, "another study", keep=3).latest(complaints.append) is None
    (tmp_path / "step-00000001/DONE").write_text('{"fingerprint": "mine", "sha256": ["state.pt"]}')
    (tmp_path / "step-last").mkdir()
    assert checkpoints.latest(complaints.append) is None and "incomplete" in complaints[-1]


def test_old_checkpoints_are_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, "mine", keep=2)
    for step in range(1, 6):
        checkpoints.save(step, {"step": step}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_each_process_reads_back_what_is_its_own(tmp_path):
    """Two processes, as threads: the first makes the folder, both write, and neither goes on without the other."""
    wait = Barrier(2).wait

    def save(rank: int) -> None:
        Checkpoints(tmp_path, "mine", 2, Place(rank, 2), wait).save(4, {"step": 4}, {"rank": rank})

    with ThreadPoolExecutor() as pool:
        list(pool.map(save, (0, 1)))
    for rank in (0, 1):
        assert Checkpoints(tmp_path, "mine", 2, Place(rank, 2)).latest(pytest.fail) == {"step": 4, "rank": rank}
    (tmp_path / "step-00000004/process-1.pt").write_bytes(b"torn")
    complaints = []
    assert Checkpoints(tmp_path, "mine", 2, Place(0, 2)).latest(complaints.append) is None and "damaged" in complaints[0]


# --- the average of the weights ---------------------------------------------------------------------------------------


RELEASES = {  # the decay of update n, as written in the source that each warm-up is named after
    None: lambda decay, n: min(decay, (1 + n) / (10 + n)),
    True: lambda decay, n: min(decay, (1 + n) / (10 + n)),  # LitEma
    False: lambda decay, n: decay,  # DiT's update_ema
    "power": lambda decay, n: 0.0 if n <= 2 else min(decay, 1 - (1 + (n - 2)) ** -0.75),  # RDT's EMAModel counts from 0
}


@pytest.mark.parametrize("warmup", RELEASES)
@pytest.mark.parametrize("decay", [0.1, 0.9, 0.9999])
def test_the_average_is_the_recursion_of_its_definition(decay, warmup):
    """In fp64 by hand."""
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    training = Training(steps=30, ema=decay, ema_warmup=warmup)
    average, rng = Average(model, training), np.random.default_rng(0)
    expected = model.weight.detach().double().numpy().copy()
    for n in range(1, 30):
        model.weight.data = torch.from_numpy(rng.normal(size=(2, 3)).astype(np.float32))
        d = RELEASES[warmup](decay, n)
        average.update()
        expected = d * expected + (1 - d) * model.weight.detach().double().numpy()
    assert average.names == ["weight"]
    np.testing.assert_allclose(average.weights[0].numpy(), expected, atol=1e-6)


def test_the_average_takes_the_place_of_the_weights_for_a_while():
    model = nn.Linear(3, 2)
    average, own = Average(model, Training(steps=1, ema=0.5)), model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    with average.in_place():
        assert torch.equal(model.weight, own)
    assert torch.equal(model.weight, own + 1)


# --- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("aggregator.frame_blocks.2-3", 8),
        ("aggregator.*_blocks.0", 8),
        ("depth_head", 30),
        ("depth_head.*", 30),
        ("depth_head.resize_layers", 1),
        ("camera_head.trunk.*.attn", 2),
    ],
)
def test_patterns(vggt, pattern, count):
    assert len(adaptable_modules(vggt, [pattern])) == count


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("aggregator.frame_block.2-3", "did you mean frame_blocks"),
        ("depth_haed", "did you mean depth_head"),
        ("aggregator.frame_blocks.12-23", "there are: 0, 1, 2, 3"),
        ("depth_head.norm", "another kind"),
    ],
)
def test_a_pattern_that_matches_nothing_lists_near_names(vggt, pattern, words):
    with pytest.raises(UserError, match=pattern) as caught:
        adaptable_modules(vggt, ["camera_head", pattern])
    assert words in str(caught.value)


def test_overlapping_patterns_count_once(vggt):
    assert adaptable_modules(vggt, ["depth_head.scratch", "depth_head"]) == adaptable_modules(vggt, ["depth_head"])
    assert "depth_head.norm" in modules(vggt, ["depth_head"])


# --- schedule and order ----------------------------------------------------------------------------------------------


@given(st.integers(2, 500), st.floats(0, 0.5), st.sampled_from(["cosine", "constant"]))
def test_learning_rates(total, warmup, schedule):
    training = Training(steps=total, warmup=warmup, schedule=schedule, min_lr=1e-6)
    rates = [learning_rate(step, total, 1e-3, training) for step in range(total)]
    first = round(warmup * total)
    assert all(0 <= rate <= 1e-3 * (1 + 1e-9) for rate in rates)
    assert rates[:first] == sorted(rates[:first])
    assert rates[first:] == sorted(rates[first:], reverse=True)
    if schedule == "cosine":
        assert learning_rate(total, total, 1e-3, training) == pytest.approx(1e-6)
    else:
        assert set(rates[first:]) == {1e-3}


@pytest.mark.parametrize(("schedule", "theirs"), [("cosine", "cosine"), ("constant", "constant_with_warmup")])
@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_learning_rates_are_those_of_diffusers(schedule, theirs, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    scheduler = get_scheduler(theirs, optimizer, num_warmup_steps=warmup, num_training_steps=12)
    training = Training(steps=12, warmup=warmup / 12, schedule=schedule, min_lr=0)
    for step in range(12):
        assert learning_rate(step, 12, 1e-3, training) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


GROUPS = st.lists(st.integers(1, 3), min_size=1, max_size=30)


@given(GROUPS, st.integers(1, 5), st.integers(0, 9), st.integers(0, 3))
def test_steps_are_full_of_one_group_and_hold_every_sample(groups, samples, seed, epoch):
    steps = order.steps_of_epoch(groups, samples, seed, epoch)
    assert all(len(step) == samples and len({groups[i] for i in step}) == 1 for step in steps)
    assert {i for step in steps for i in step} == set(range(len(groups)))
    assert len(steps) == order.steps_per_epoch(groups, samples)
    assert steps == order.steps_of_epoch(groups, samples, seed, epoch)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_a_step_has_the_same_samples_however_it_is_split(batch, accumulation, processes):
    split = order.Split(batch, accumulation, processes)
    step = [Draw(0, 0, 0, index) for index in range(split.samples)]
    shares = [split._replace(process=process).mine(step) for process in range(processes)]
    assert all(len(share) == accumulation and {len(b) for b in share} == {batch} for share in shares)
    assert sorted(draw for share in shares for b in share for draw in b) == step


@given(GROUPS, st.integers(1, 4), st.integers(0, 40))
def test_the_stream_can_be_entered_anywhere(groups, samples, start):
    whole = list(islice(order.draws(groups, samples, 5, 0), start + 10))
    assert list(islice(order.draws(groups, samples, 5, start), 10)) == whole[start:]
