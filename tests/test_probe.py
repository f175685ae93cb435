"""Probing: cells named by what they cost, the trainer's own step on random data, jobs that fail alone, searches in rounds."""

import json
import math
import os
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import submitit
import torch
import train_run
from accelerate.state import AcceleratorState
from conftest import ROOT, STUDY
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import default_collate

from ablation.errors import UserError
from ablation.hardware import load_card
from ablation.probe import slurm
from ablation.probe.batches import largest_batches
from ablation.probe.cell import Cell, at_batch, unprobeable
from ablation.probe.jobs import Job, run_locally
from ablation.probe.measure import measure
from ablation.probe.prober import Prober
from ablation.probe.search import search
from ablation.probe.table import row_of, text_table
from ablation.study import load_study
from ablation.sweep import Run, expand, one_per_cell
from ablation.systems import load_system
from ablation.systems.base import Draw
from ablation.systems.vggt.data.making import prepare_scene
from ablation.systems.vggt.model.vggt import VGGT
from ablation.systems.vggt.system import System
from ablation.training.model import for_training, fresh_for_training, materialise
from ablation.vram.budget import CONTEXT_GIB, Budget, hold_to_card

CPU = torch.device("cpu")
CARD = load_card("rtx4090", ROOT / "config/hardware")
PLENTY = Budget("rtx4090", CARD.usable_gib, emulated=True)
SCENES = {"source": "eth3d", "scenes": ["hall", "yard"], "split": {"test": ["yard"]}}
LIMIT = 300


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    AcceleratorState._reset_state(True)


def runs(**overrides) -> list[Run]:
    return expand(load_study(STUDY, overrides), "s")


def one(**axes) -> Run:
    return runs(sweep={"strategy": "A", "rank": 4, "seed": 0, **axes})[0]


@pytest.mark.parametrize(("how", "gpus"), [({}, 2), ({"distributed": "zero2"}, 1), ({"distributed": "zero2"}, 2)])
def test_what_processes_share_is_not_probed(how, gpus):
    assert unprobeable(one(), CARD) is None
    run = runs(strategies={"A": how}, sweep={"strategy": "A", "rank": 4, "seed": 0, "gpus": gpus})[0]
    assert "a probe is one process" in unprobeable(run, CARD)


# --- the search ------------------------------------------------------------------------------------------------------


def largest(fits, guess: int, limit: int) -> int:
    """What the search ends with, where ``fits`` tells of each batch."""
    trials = search(guess, limit)
    batch = next(trials)
    try:
        while True:
            batch = trials.send(fits(batch))
    except StopIteration as end:
        return end.value


@given(answer=st.integers(0, LIMIT), guess=st.integers(-5, 2 * LIMIT))
def test_the_search_finds_the_largest_batch_in_few_trials(answer, guess):
    tried = []

    def fits(batch):
        assert 1 <= batch <= LIMIT and batch not in tried
        tried.append(batch)
        return batch <= answer

    assert largest(fits, guess, LIMIT) == answer
    distance = abs(min(max(guess, 1), LIMIT) - answer)
    assert len(tried) <= 2 * math.log2(distance + 1) + 2


@given(answer=st.integers(1, LIMIT - 1))
def test_a_right_guess_takes_two_trials(answer):
    tried = []
    largest(lambda batch: tried.append(batch) or batch <= answer, answer, LIMIT)
    assert tried == [answer, answer + 1]


# --- cells -----------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_their_seed_are_one_cell():
    everything = runs(sweep={"rank": [4, 16], "seed": [0, 1, 2]})
    cells = one_per_cell(everything)
    assert len(everything) == 18 and [(run.axes["strategy"], run.rank, run.axes["seed"]) for run in cells] == [
        (strategy, rank, 0) for strategy in "ABC" for rank in (4, 16)
    ]


def test_a_cell_is_named_by_what_it_costs():
    def name(run, card=CARD, device="cpu", steps=5):
        return Cell(run, card, device, steps).name

    same = [
        one(),
        one(seed=3),
        runs(sweep={"strategy": "A", "rank": 4, "seed": 0}, title="other", training={"steps": 7, "warmup": 0.2})[0],
        runs(sweep={"strategy": "A", "rank": 4, "seed": 0, "strategies.A.lr": [1e-5]})[0],
        runs(sweep={"strategy": "A", "rank": 4, "seed": 0}, compute={"mem_gib": 3})[0],
    ]
    assert len({name(run) for run in same}) == 1
    others = [
        one(rank=8), one(batch=1), one(accumulation=2), one(precision="bf16"), one(strategy="C"),
        runs(sweep={"strategy": "A", "rank": 4, "seed": 0}, data={"frames": 3})[0],
        runs(sweep={"strategy": "A", "rank": 4, "seed": 0}, strategies={"A": {"gradient_checkpointing": True}})[0],
    ]  # fmt: skip
    names = [name(one()), *map(name, others), name(one(), replace_memory(1.0)), name(one(), device="L4"), name(one(), steps=3)]
    assert len(set(names)) == len(names)


def replace_memory(gib: float):
    return CARD.model_copy(update={"usable_gib": gib})


# --- the measurement -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(scene_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    how = {"size": (84, 112), "fit": "crop", "depth_range": (0.1, 100), "dense": False}
    for name in ("hall", "yard"):
        prepare_scene(scene_root, name, how, out / name)
    return [out / "hall", out / "yard"]


@pytest.mark.parametrize("scales", [(), (56, 112)])
def test_the_random_batch_looks_like_a_real_one(prepared, scales):
    run = runs(data={**SCENES, "multi_scale": scales})[0]
    system = load_system(run.settings)
    samples = system.samples(prepared, train=True)
    drawn = [default_collate([samples[Draw(0, 0, batch, 0)], samples[Draw(0, 0, batch, 1)]]) for batch in range(8)]
    real = max(drawn, key=lambda batch: batch["images"].numel())
    fake = system.fake_batch(2)
    assert {name: (value.shape, value.dtype) for name, value in fake.items()} == {
        name: (value.shape, value.dtype) for name, value in real.items()
    }


@pytest.mark.parametrize(("strategy", "precision"), [("A", "fp32"), ("C", "bf16"), ("B", "fp16")])
def test_a_fresh_model_is_the_real_one_with_other_values(strategy, precision):
    run = one(strategy=strategy, precision=precision)
    system = load_system(run.settings)
    real = for_training(system, run, {"weights": ROOT / "resources/vggt-demo.safetensors"}, CPU)
    fresh = fresh_for_training(system, run, CPU)

    def looks(model):
        parameters = {name: (p.shape, p.dtype, p.device, p.requires_grad) for name, p in model.named_parameters()}
        return parameters, [(name, module.training) for name, module in model.named_modules()]

    assert looks(fresh) == looks(real)
    buffers = dict(real.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in fresh.named_buffers()) and buffers


def test_shared_parameters_stay_shared():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    materialise(model, CPU)
    assert model[1].weight is model[0].weight and not model[0].weight.requires_grad and model[0].bias.requires_grad
    assert model[0].weight.isfinite().all()


@pytest.mark.parametrize(("strategy", "precision"), [("A", "fp32"), ("C", "bf16")])
def test_a_probe_measures_what_a_training_run_measures(prepared, tmp_path, strategy, precision):
    """The real thing on real data with real weights, and the probe without either: the same parameters and memory."""
    sweep = {"strategy": strategy, "rank": 4, "seed": 0, "precision": precision, "accumulation": 2}
    (run,) = runs(data=SCENES, training={"steps": 3}, sweep=sweep)
    torch.manual_seed(0)
    save_file(VGGT(run.settings.model.architecture).state_dict(), tmp_path / "weights.safetensors")
    job = {"weights": [("weights", tmp_path / "weights.safetensors")], "data": prepared, "threads": 1, "device": "cpu"}
    own = {"cards": ROOT / "config/hardware", "folder": tmp_path, "prefixes": None, "hashes": tmp_path}
    real = train_run.train(run, Namespace(**own, **job))
    AcceleratorState._reset_state(True)
    probed = measure(run, load_system(run.settings), CPU, 5, PLENTY)
    assert probed["outcome"] == real["outcome"] == "completed" and probed["parameters"] == real["parameters"]
    assert probed["memory"]["phases"].keys() == real["memory"]["phases"].keys()
    for phase in ("forward", "backward"):  # while the optimizer's phase lasts, a CPU's loader makes the next batch
        peak = real["memory"]["phases"][phase]["allocated_gib"]
        assert probed["memory"]["phases"][phase]["allocated_gib"] == pytest.approx(peak, rel=0.005), phase
    assert probed["time"]["samples_per_s"] == pytest.approx(4 / probed["time"]["step_median_s"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_random_weights_give_finite_losses_and_gradients(precision):
    """Else fp16 would skip its updates, and the optimizer's state would never be made."""
    run, losses, moved = one(strategy="C", precision=precision), [], []

    class Watched(System):
        def objective(self, model, batch, name):
            moved.append(sum(float(p.detach().double().sum()) for p in model.parameters() if p.requires_grad))
            found = super().objective(model, batch, name)
            losses.append(float(found.loss.detach()))
            return found

    assert measure(run, Watched(run.settings), CPU, 3, PLENTY)["outcome"] == "completed"
    assert all(map(math.isfinite, losses)) and len(set(moved)) == 3


def test_out_of_memory_is_an_outcome():
    """The error of a CUDA allocator in the middle of a step."""
    run = one()

    class Hungry(System):
        def objective(self, model, batch, name):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    record = measure(run, Hungry(run.settings), CPU, 3, PLENTY)
    assert record["outcome"] == "oom" and record["oom"]["phase"] == "forward"
    assert record["oom"]["message"] == "CUDA out of memory. Tried to allocate 20.00 GiB."
    json.dumps(record, allow_nan=False)


def test_more_than_the_budget_is_out_of_memory():
    run = one()
    needed = measure(run, load_system(run.settings), CPU, 3, PLENTY)["memory"]["peak_allocated_gib"]
    assert measure(run, load_system(run.settings), CPU, 3, Budget("small", 1.01 * needed, True))["outcome"] == "completed"
    tight = measure(run, load_system(run.settings), CPU, 3, Budget("small", 0.99 * needed, True))
    assert tight["outcome"] == "oom" and tight["oom"]["phase"] in ("forward", "backward")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_the_budget_is_the_card_s(precision):
    run, device = one(precision=precision, batch=4), torch.device("cuda")
    free = measure(run, load_system(run.settings), device, 5, PLENTY)
    assert free["outcome"] == "completed" and free["memory"]["phases"]["load"]["reserved_gib"] > 0
    torch.cuda.empty_cache()
    small = CARD.model_copy(update={"usable_gib": 0.8 * free["memory"]["peak_allocated_gib"] + CONTEXT_GIB})
    tight = measure(run, load_system(run.settings), device, 5, hold_to_card("small", small, device))
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert tight["outcome"] == "oom" and tight["memory"]["allocator_ooms"] > 0


# --- jobs on this machine --------------------------------------------------------------------------------------------


def job(name: str, code: str, output=Path("unused")) -> Job:
    return Job(name, [sys.executable, "-c", code], output, gpus=1, threads=1, mem_gib=1)


def test_jobs_end_each_in_its_own_way(tmp_path):
    jobs = [
        job("good", "print('error: not really')"),
        job("user", "import sys; sys.exit('error: no such thing')"),
        job("bug", "print('starting'); 1 / 0"),
        job("dead", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        job("threads", "import os, sys; sys.exit(os.environ['OMP_NUM_THREADS'])"),
    ]
    ended = {done.name: reason for done, reason in run_locally(jobs, tmp_path, 2)}
    assert ended == {
        "good": None,
        "user": "error: no such thing",
        "bug": "ZeroDivisionError: division by zero",
        "dead": "killed by SIGKILL; out of host memory?",
        "threads": "1",
    }


def test_as_many_jobs_at_a_time_as_there_are_devices(tmp_path):
    log = str(tmp_path / "log")
    wait = f"while open({log!r}).read().count('+') < 2: time.sleep(0.01)"  # the first for the second, however late that is
    code = f"import time\nf = open({log!r}, 'a')\nf.write('+'); f.flush()\n{wait}\ntime.sleep(0.3); f.write('-')"
    assert len(list(run_locally([job(str(i), code) for i in range(5)], tmp_path, 2))) == 5
    running = seen = 0
    for mark in (tmp_path / "log").read_text():
        running += {"+": 1, "-": -1}[mark]
        seen = max(seen, running)
    assert seen == 2 and running == 0


def test_what_runs_is_killed_when_nobody_waits(tmp_path):
    code = f"import os, time; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w'); time.sleep(600); print('survived')"
    jobs = run_locally([job("quick", "pass"), job("slow", code)], tmp_path / "logs", 2)
    next(jobs)
    while not (pids := [path.name for path in tmp_path.iterdir() if path.is_file()]):
        time.sleep(0.05)
    jobs.close()
    assert not Path(f"/proc/{pids[0]}").exists() and "survived" not in (tmp_path / "logs/slow.log").read_text()


# --- jobs on SLURM: what is asked for (a real cluster: tests/slurm) ----------------------------------------------------


def test_a_job_asks_for_the_profile_s_place_and_the_study_s_needs():
    asked = slurm.sbatch_parameters(
        Job("x", [], Path("x"), gpus=1, threads=4, mem_gib=32),
        {"slurm_partition": "a", "slurm_account": "me", "runtime": 30, "gpu_model": "rtx4090", "jobs": 8, "qos": "high",
         "slurm_extra": "--exclude=n1,n2 --contiguous --signal=USR1@300"},
    )  # fmt: skip
    assert asked["partition"] == "a" and asked["account"] == "me" and asked["qos"] == "high" and asked["time"] == 30
    assert asked["cpus_per_task"] == 4 and asked["mem"] == "32768M" and asked["array_parallelism"] == 8
    extra = {"requeue": True, "gpus": "rtx4090:1", "exclude": "n1,n2", "contiguous": True}
    assert asked["additional_parameters"] == extra
    by_gres = slurm.sbatch_parameters(job("x", ""), {"gres": "gpu:a100:1", "mem_mb": 5000, "jobs": 1})
    assert "gpus" not in by_gres["additional_parameters"] and by_gres["mem"] == "5000M" and "partition" not in by_gres
    with pytest.raises(UserError, match="slurm_extra: -C gpu"):
        slurm.sbatch_parameters(job("x", ""), {"slurm_extra": "-C gpu", "jobs": 1})


def test_jobs_that_need_the_same_share_an_array():
    jobs = [replace_job(i) for i in range(2500)]
    arrays = list(slurm._arrays(jobs))
    assert [len(array) for array in arrays] == [1000, 250, 1000, 250]
    assert all(len({(each.gpus, each.threads, each.mem_gib) for each in array}) == 1 for array in arrays)
    assert sorted(int(each.name) for array in arrays for each in array) == list(range(2500))


def replace_job(number: int) -> Job:
    return job(str(number), "")._replace(mem_gib=1 + number % 2)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", None),
        ("import sys; print('INFO x', file=sys.stderr); sys.exit('error: no device\\n  hint')", "error: no device"),
        ("import sys; sys.exit('error: at once')", "error: at once"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL; out of host memory?"),
    ],
)
def test_the_reason_of_a_failed_task(tmp_path, code, reason):
    """submitit's own machinery, on this machine."""
    executor = submitit.LocalExecutor(tmp_path)
    task = executor.submit(submitit.helpers.CommandFunction([sys.executable, "-c", code]))
    task.wait()
    assert slurm._failure(task) == reason and not slurm._withdrawn(task)


def test_an_array_beyond_a_submit_limit_goes_in_halves(tmp_path, monkeypatch):
    """Of five tasks, where a user may have two in the queue."""
    sbatch = f"""\
echo >> {tmp_path}/calls
last=$(grep -o 'array=0-[0-9]*' $1)
[ ${{last:+${{last#*-}}}}0 -lt 20 ] || {{ echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1; }}
echo Submitted batch job $(wc -l < {tmp_path}/calls)
"""
    for name, text in {"sbatch": sbatch, "srun": ":"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    jobs = [job(str(number), "") for number in range(5)]
    sent = list(slurm._sent(jobs, tmp_path / "logs", {"jobs": 9}))
    assert [list(tasks.values()) for tasks in sent] == [jobs[:2], jobs[2:3], jobs[3:]]
    assert [task.job_id for tasks in sent for task in tasks] == ["2_0", "2_1", "4", "5_0", "5_1"]


def test_what_slurm_withdraws_has_no_result_of_its_own(tmp_path):
    """A cancelled or preempted command may die before submitit does, which then writes that it failed: SLURM knows better."""
    code = "import os; os.kill(os.getpid(), 15)"
    task = submitit.LocalExecutor(tmp_path).submit(submitit.helpers.CommandFunction([sys.executable, "-c", code]))
    task.wait()
    assert task.paths.result_pickle.is_file()
    assert slurm._withdrawn(task) and not task.paths.result_pickle.exists()


# --- each cell once --------------------------------------------------------------------------------------------------


class Desk:
    """Where jobs end at once as ``outcome(job)`` says: a record, or the reason of a failure. Remembers what was sent."""

    def __init__(self, outcome):
        self.outcome, self.sent = outcome, []

    def __call__(self, jobs):
        self.sent.append([each.name for each in jobs])
        for each in jobs:
            found = self.outcome(each)
            if isinstance(found, dict):
                each.output.parent.mkdir(parents=True, exist_ok=True)
                each.output.write_text(json.dumps(found))
            yield each, None if isinstance(found, dict) else found


def batch_of(each: Job) -> int:
    return int(next(word.partition("=")[2] for word in each.command if word.startswith("--batch=")))


DONE = {"outcome": "completed"}


def test_what_is_measured_is_not_measured_again_and_failures_are(tmp_path):
    cells = [Cell(run, CARD, "cpu") for run in one_per_cell(runs(sweep={"rank": [4, 16], "seed": [0, 1]}))]
    unlucky = cells[2].name
    desk = Desk(lambda each: "the node went down" if each.name == unlucky else DONE)
    prober = Prober(tmp_path / "study.json", tmp_path / "cards", tmp_path / "probe", desk)
    found = prober.measure(cells, "first")
    assert found[unlucky] == {"outcome": "failed", "reason": "the node went down"}
    assert sum(record["outcome"] == "completed" for record in found.values()) == 5
    assert json.loads((tmp_path / "probe/failures.json").read_text()) == {unlucky: 1}
    desk.outcome = lambda each: DONE
    assert {record["outcome"] for record in prober.measure(cells, "second").values()} == {"completed"}
    prober.measure(cells, "third")
    assert desk.sent == [[cell.name for cell in cells], [unlucky], []]


def test_what_goes_wrong_here_ends_the_jobs_at_once(tmp_path):
    """Not when the error is forgotten at last: its traceback holds the generator."""
    ended = []

    def desk(jobs):
        try:
            for each in jobs:
                yield each, None  # and no record, which is what goes wrong
        finally:
            ended.append(True)

    cells = [Cell(run, CARD, "cpu") for run in one_per_cell(runs(sweep={"rank": 4, "seed": 0}))]
    with pytest.raises(FileNotFoundError):
        Prober(tmp_path / "study.json", tmp_path / "cards", tmp_path / "probe", desk).measure(cells, "x")
    assert ended


def test_cells_that_cost_the_same_are_measured_once(tmp_path):
    sweep = {"strategy": "A", "rank": 4, "seed": 0, "strategies.A.lr": [1e-3, 1e-4]}
    cells = [Cell(run, CARD, "cpu") for run in runs(sweep=sweep)]
    desk = Desk(lambda each: DONE)
    found = Prober(tmp_path / "study.json", tmp_path / "cards", tmp_path, desk).measure(cells, "x")
    assert len(cells) == 2 and len(found) == 1 and len(desk.sent[0]) == 1


# --- the largest batch -----------------------------------------------------------------------------------------------

SWEEP = {"strategy": ["A", "C"], "rank": [4, 16], "batch": [1, 2, 4], "accumulation": [1, 8], "seed": [0, 1]}


def test_the_searches_advance_together_and_a_right_guess_takes_two_rounds(tmp_path):
    fits = {("A", 4): 9, ("A", 16): 7, ("C", 4): 3, ("C", 16): 0}

    def outcome(each):
        words = each.name.split("-")
        return DONE if batch_of(each) <= fits[words[0], int(words[1][1:])] else {"outcome": "oom"}

    desk = Desk(outcome)
    prober = Prober(tmp_path / "study.json", tmp_path / "cards", tmp_path, desk)
    study = runs(sweep=SWEEP)
    rows = largest_batches(study, CARD, "cpu", prober, lambda run, card: fits[run.axes["strategy"], run.rank])
    assert {(row["strategy"], row["rank"]): row["largest_batch"] for row in rows} == fits
    assert [row["outcome"] for row in rows] == ["found", "found", "found", "oom"]
    assert [len(sent) for sent in desk.sent] == [4, 3] and [row["trials"] for row in rows] == [2, 2, 2, 1]
    assert all("x2-" in name for sent in desk.sent for name in sent), "two forward passes stand for eight"
    assert "batch" not in rows[0] and "accumulation" not in rows[0]
    largest_batches(study, CARD, "cpu", prober, lambda run, card: 1)
    assert not set(desk.sent[0] + desk.sent[1]) & {name for sent in desk.sent[2:] for name in sent}


def test_a_search_that_fails_stops_alone(tmp_path):
    desk = Desk(lambda each: "lost" if each.name.startswith("C") else DONE if batch_of(each) < 6 else {"outcome": "oom"})
    sweep = {"strategy": ["A", "C"], "rank": 4, "seed": 0}
    prober = Prober(tmp_path / "study.json", tmp_path / "cards", tmp_path, desk)
    found, failed = largest_batches(runs(sweep=sweep), CARD, "cpu", prober, lambda run, card: 1)
    assert (found["outcome"], found["largest_batch"]) == ("found", 5)
    assert (failed["outcome"], failed["reason"], failed["largest_batch"]) == ("failed", "lost", None)


def test_what_the_card_cannot_do_is_not_searched(tmp_path):
    card, desk = CARD.model_copy(update={"precisions": ("bf16",)}), Desk(lambda each: DONE)
    (row,) = largest_batches([one()], card, "cpu", Prober(tmp_path, tmp_path, tmp_path, desk), lambda run, card: 1)
    assert row["outcome"] == "invalid" and "does not train in fp32" in row["reason"] and desk.sent == []


def test_another_batch_is_another_run_of_the_same_id():
    run = at_batch(one(), 7, 2)
    assert run.effective_batch == 14 and run.id == one().id and run.training_view["axes"]["batch"] == 7


# --- tables ----------------------------------------------------------------------------------------------------------


def completed(allocated: float) -> dict:
    phases = {
        "load": {"allocated_gib": 9.0},
        "forward": {"allocated_gib": allocated / 2},
        "backward": {"allocated_gib": allocated},
    }
    memory = {"peak_allocated_gib": allocated, "peak_reserved_gib": 2 * allocated, "phases": phases}
    time_ = {"step_median_s": 0.25, "samples_per_s": 8.0}
    return {"outcome": "completed", "memory": memory, "time": time_, "device": {"type": "cuda", "name": "NVIDIA L4"}}


def test_a_row_holds_measurement_prediction_and_error():
    planned = {"verdict": "fits", "predicted_allocated_gib": "4.4", "predicted_reserved_gib": "7.6", "predicted_by": "trace"}
    row = row_of(one(), completed(4.0), planned)
    assert row["peak_allocated_gib"] == 4.0 and row["peak_phase"] == "backward" and row["step_s"] == 0.25
    assert (row["predicted_allocated_gib"], row["error_allocated"], row["error_reserved"]) == (4.4, 0.1, -0.05)
    assert row["verdict"] == "fits" and "seed" not in row and "predicted_by" not in row
    bare = row_of(one(), completed(4.0), {"predicted_allocated_gib": ""})
    assert not [name for name in bare if name.startswith(("predicted", "error"))]


def test_an_oom_row_has_its_prediction_and_no_peak():
    oom = {**completed(23.0), "outcome": "oom", "oom": {"phase": "forward", "message": "CUDA out of memory."}}
    row = row_of(one(), oom, {"predicted_allocated_gib": "31.5"})
    assert row["outcome"] == "oom" and row["reason"] == "forward: CUDA out of memory."
    assert row["peak_allocated_gib"] is None and row["predicted_allocated_gib"] == 31.5 and "error_allocated" not in row


def test_the_table_on_the_terminal():
    failed = {"outcome": "failed", "reason": "SLURM: TIMEOUT"}
    oom = {"outcome": "oom", "oom": {"phase": "forward", "message": "out"}, "device": {"name": "NVIDIA L4"}}
    planned = {"predicted_allocated_gib": "4.4"}
    rows = [
        row_of(one(rank=4), completed(4.0), planned),
        row_of(one(rank=16), oom, planned),
        row_of(one(rank=64), failed, planned),
    ]
    columns = {"outcome": "outcome", "peak_allocated_gib": "peak GiB", "error_allocated": "error", "absent": "never"}
    assert text_table("s", "cells", rows, columns).splitlines() == [
        "s: 3 cells (1 completed, 1 oom, 1 failed) on NVIDIA L4",
        "  strategy  rank    outcome  peak GiB   error",
        "         A     4  completed         4  +10.0%",
        "         A    16        OOM         -       -",
        "         A    64     failed         -       -",
        "  1 failed: SLURM: TIMEOUT",
    ]
