"""What a frozen part has made of the images is read back bit by bit; what is not there, or is not right, is computed."""

import json
import logging
import weakref
from collections.abc import Sequence
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from ablation.evaluation import evaluate
from ablation.prefix.cache import INDEX, MARK, OUTPUTS, Cache, Filling, digest_of
from ablation.prefix.fill import fill
from ablation.prefix.identity import identity_of, system_for
from ablation.prefix.uses import held_out_uses, training_uses
from ablation.study import study_model
from ablation.sweep import Run, expand
from ablation.systems import load_system
from ablation.systems.base import Draw
from ablation.systems.vggt.data.making import prepare_scene
from ablation.systems.vggt.model.prefix import frozen_depths
from ablation.training.model import adapted
from ablation.training.trainer import Trainer
from ablation.vram.budget import Budget
from ablation.vram.measure import CpuMeter

CPU = torch.device("cpu")
PLENTY = Budget("any", 1.0, emulated=True)
STRATEGIES = {
    "A": {"train": {"lora": ["depth_head.projects", "depth_head.scratch"]}, "lr": 1e-3},
    "B": {"train": {"lora": ["aggregator.*_blocks.2-3", "depth_head"]}, "lr": 1e-3, "gradient_checkpointing": True},
    "C": {"train": {"lora": ["aggregator.frame_blocks", "aggregator.global_blocks", "camera_head"]}, "lr": 1e-3},
    "trunk": {"train": {"lora": ["aggregator.patch_embed", "depth_head"]}, "lr": 1e-3},
    "all": {"train": {"full": ["*"]}, "lr": 1e-3},
    "qkv": {"train": {"lora": ["aggregator.global_blocks.1-3.attn.qkv"]}, "lr": 1e-3},
}
AUGMENTED = {"crop": 0.8, "jitter": 0.2, "mirror": 0.5}


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def folders(scene_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    how = {"size": (28, 42), "fit": "crop", "depth_range": (0.1, 100), "dense": False}
    for name in ("hall", "yard"):
        prepare_scene(scene_root, name, how, out / name)
    return [out / "hall", out / "yard"]


@pytest.fixture
def lab(tmp_path, tiny, vggt, folders):
    """Runs of a tiny study, their cache, and what comes of them."""
    save_file(vggt.state_dict(), tmp_path / "weights.safetensors")
    weights, built = {"weights": tmp_path / "weights.safetensors"}, []

    def runs(
        strategy: Sequence[str] = ("A", "B", "C"), augment: dict | None = None, data=None, training=None, **axes
    ) -> list[Run]:
        content = {
            "system": "vggt",
            "data": {
                "scenes": ["hall", "yard"], "resolution": [28, 42], "frames": 3, "target": "laser", "split": {"by": "scene"},
                "augment": augment or {}, **(data or {}),
            },
            "model": {"weights": str(weights["weights"]), "architecture": tiny.model_dump(mode="json")},
            "training": {"steps": 5, "checkpoint_every": 3, "preview_every": 5, **(training or {})},
            "evaluation": {"pictures": 0},  # which take as long as all the rest
            "compute": {"threads": 1, "workers": 0},
            "strategies": STRATEGIES,
            "sweep": {"strategy": list(strategy), "rank": 4, "precision": "fp32", "batch": 2, **axes},
        }  # fmt: skip
        return expand(study_model("vggt").model_validate(content), "tiny")

    def cache(of: list[Run], name: str = "prefix", limit: int = 2**30):
        """The folder of the cache for the runs ``of``."""
        folder = tmp_path / name / of[0].prefix
        folder.mkdir(parents=True)
        filling = Filling(folder, limit)
        fill(of, of, weights, folders, filling, CPU)
        filling.close(identity_of(of[0], weights, tmp_path / "hashes", CPU))
        AcceleratorState._reset_state(True)
        return folder

    def system(run: Run, prefix=None, trained=True):
        return system_for(run, prefix and prefix.parent, weights, tmp_path / "hashes", CPU, trained)

    def trainer(run: Run, folder: str, prefix=None):
        AcceleratorState._reset_state(True)
        (tmp_path / folder).mkdir(exist_ok=True)
        built.append(Trainer(run, system(run, prefix), weights, folders, tmp_path / folder, CPU, CpuMeter(PLENTY)))
        return built[-1]

    def judged(run: Run, folder: str | None, prefix=None) -> dict:
        AcceleratorState._reset_state(True)
        where = tmp_path / folder if folder else None
        pictures = tmp_path / "pictures"
        return evaluate(system(run, prefix, folder is not None), run.axes["precision"], weights, where, folders, pictures, CPU)

    yield SimpleNamespace(**locals(), folders_=folders)
    for one in built:
        one.meter.report()


@pytest.fixture
def trunks(monkeypatch):
    """Counts the images that the trunk sees."""
    from ablation.systems.vggt.model.vit import VisionTransformer

    seen, forward = [], VisionTransformer.forward

    def counted(self, images):
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(VisionTransformer, "forward", counted)
    return seen


def finished(trainer):
    """What was trained, the gradients of the last step, and the history, less its times."""
    assert trainer.train() == "completed"
    trainer.finish()
    named = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]
    return (
        {name: p.detach().clone() for name, p in named},
        {name: p.grad.clone() for name, p in named if p.grad is not None},
        [{k: str(v) for k, v in row.items() if k != "seconds"} for row in trainer.history.rows],
    )


def same(one, two):
    """Bit by bit."""
    assert one[2] == two[2]
    for a, b in zip(one[:2], two[:2], strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- what a run reads is what it would compute ------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, AUGMENTED])
@pytest.mark.parametrize(("strategy", "precision"), [("A", "fp32"), ("B", "fp32"), ("C", "fp32"), ("A", "bf16"), ("B", "bf16")])
def test_losses_gradients_weights_and_metrics_are_the_same(lab, trunks, strategy, precision, augment):
    shared = lab.runs(augment=augment, precision=precision)
    prefix = lab.cache(shared)
    run = next(run for run in shared if run.axes["strategy"] == strategy)
    without = finished(lab.trainer(run, "without")), lab.judged(run, "without"), lab.judged(run, None)
    del trunks[:]
    reading = finished(lab.trainer(run, "with", prefix)), lab.judged(run, "with", prefix), lab.judged(run, None, prefix)
    assert trunks == [3] * 2 * 2, "all was read but for two steps of two sequences"
    same(without[0], reading[0])
    assert without[1:] == reading[1:]


def test_a_run_that_died_reads_on_where_it_stopped(lab, monkeypatch):
    runs = lab.runs(augment=AUGMENTED)
    prefix, run = lab.cache(runs), runs[0]
    whole = finished(lab.trainer(run, "whole"))
    first = lab.trainer(run, "cut", prefix)
    record = first._record

    def die(step, *rest):
        record(step, *rest)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(first, "_record", die)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    first.meter.report()
    resumed = lab.trainer(run, "cut", prefix)
    assert resumed.start == 3
    same(whole, finished(resumed))


def test_data_loader_processes_read_the_same(lab):
    runs = lab.runs(["A"], seed=[0, 1])
    prefix = lab.cache(runs)
    settings = runs[0].settings.model_copy(update={"compute": runs[0].settings.compute.model_copy(update={"workers": 2})})
    in_workers = Run(runs[0].id, "tiny", runs[0].axes, runs[0].strategy, settings)
    same(finished(lab.trainer(runs[0], "here", prefix)), finished(lab.trainer(in_workers, "workers", prefix)))


def test_what_was_read_is_given_up_after_the_forward_pass(lab):
    """As what is computed is, so that a step that reads needs no more memory than the one that is predicted."""
    runs = lab.runs(["A"], seed=[0, 1])
    trainer = lab.trainer(runs[0], "run", lab.cache(runs))
    batch = next(islice(trainer._loader(0), 2, None))
    assert {name for name in batch if name.startswith(MARK)} == {f"{MARK}level.{depth}" for depth in range(4)}
    held = [weakref.ref(value) for name, value in batch.items() if name.startswith(MARK)]
    objective = trainer.system.objective(trainer.model, batch, "total")
    assert objective.loss.requires_grad and all(one() is None for one in held) and "images" not in batch


def test_measured_memory_is_that_of_computing_all(lab):
    runs = lab.runs(["A"], seed=[0, 1])
    prefix = lab.cache(runs)
    without, reading = (lab.trainer(runs[0], name, of) for name, of in (("without", None), ("with", prefix)))
    peaks = []
    for trainer in (without, reading):
        finished(trainer)
        peaks.append(trainer.meter.report())
    assert peaks[0] == peaks[1]


# --- what is not there ------------------------------------------------------------------------------------------------


def test_a_batch_of_which_something_is_missing_is_computed(lab, trunks):
    """Half of the training samples are known, so that batches mix known and unknown ones."""
    runs = lab.runs(["A"], seed=[0, 1])
    prefix = lab.cache(runs)
    index = json.loads((prefix / INDEX).read_text())
    index["samples"] = dict(list(index["samples"].items())[::2])
    (prefix / INDEX).write_text(json.dumps(index))
    del trunks[:]
    without = finished(lab.trainer(runs[0], "without"))
    computed = len(trunks)
    del trunks[:]
    same(without, finished(lab.trainer(runs[0], "with", prefix)))
    assert 0 < len(trunks) < computed


def test_the_limit_holds_and_deeper_cuts_make_room_for_all_samples(lab, trunks):
    runs = lab.runs(augment=AUGMENTED)
    whole = (lab.cache(runs, "whole") / OUTPUTS).stat().st_size
    prefix = lab.cache(runs, "half", whole // 2)
    index = json.loads((prefix / INDEX).read_text())
    assert (prefix / OUTPUTS).stat().st_size == index["bytes"] <= whole // 2
    full = json.loads((lab.tmp_path / "whole" / runs[0].prefix / INDEX).read_text())["samples"]
    assert index["samples"].keys() == full.keys(), "each sample is there, at some cut"
    without = finished(lab.trainer(runs[0], "without"))
    del trunks[:]
    same(without, finished(lab.trainer(runs[0], "with", prefix)))
    assert trunks == [3] * 2 * 2, "A goes on from the shallower cut"


def test_a_limit_that_takes_little_keeps_the_held_out_samples(lab):
    runs = lab.runs()
    whole = (lab.cache(runs, "whole") / OUTPUTS).stat().st_size
    prefix = lab.cache(runs, "little", whole // 8)
    held_out = lab.system(runs[0]).samples(lab.folders, train=False)
    known = json.loads((prefix / INDEX).read_text())["samples"]
    assert (prefix / OUTPUTS).stat().st_size <= whole // 8
    assert {digest_of(held_out[Draw(0, 0, 0, i)]["images"]) for i in range(len(held_out))} <= known.keys()


IDENTITY = {"weights": "w", "precision": "fp32", "device": [{"threads": 1}]}
NUMBERS = [torch.full((2, 3), float(number)) for number in range(4)]


@pytest.fixture
def small(tmp_path):
    """A cache of four inputs at two cuts."""
    filling = Filling(tmp_path, 2**20)
    for value in NUMBERS:
        assert filling.add(value, {0: {"near": value[None] + 1}, 2: {"far": value[None].bfloat16()}})
    filling.close(IDENTITY)
    return tmp_path


def test_what_is_kept_comes_back_at_the_deepest_cut_that_is_not_beyond(small):
    deep, shallow = Cache(small, IDENTITY, 2)(NUMBERS), Cache(small, IDENTITY, 1)(NUMBERS)
    assert all(torch.equal(one["far"], value[None].bfloat16()) for one, value in zip(deep, NUMBERS, strict=True))
    assert all(torch.equal(one["near"], value[None] + 1) for one, value in zip(shallow, NUMBERS, strict=True))
    assert Cache(small, IDENTITY, 2)([*NUMBERS, torch.zeros(3, 2)]) is None, "the same bytes in another shape"


@pytest.mark.parametrize("fault", ["index", "empty", "cut short", "changed", *IDENTITY])
def test_a_damaged_or_foreign_cache_is_told_and_not_read(small, caplog, fault):
    index, outputs = small / INDEX, small / OUTPUTS
    match fault:
        case "index":
            index.write_text(index.read_text()[:-40])
        case "empty":
            index.write_text("{}")
        case "cut short":
            outputs.write_bytes(outputs.read_bytes()[:-1])
        case "changed":
            outputs.write_bytes(bytes(len(outputs.read_bytes())))
    identity = {**IDENTITY, fault: "another"} if fault in IDENTITY else IDENTITY
    with caplog.at_level(logging.WARNING):
        assert Cache(small, identity, 2)(NUMBERS[1:]) is None
    assert "computed" in caplog.text


def test_a_run_computes_what_is_damaged(lab, trunks):
    run, prefix = lab.runs(["A"])[0], lab.cache(lab.runs(["A"], seed=[0, 1]))
    del trunks[:]
    without = finished(lab.trainer(run, "without"))
    computed = sum(trunks)
    (prefix / OUTPUTS).write_bytes(bytes((prefix / OUTPUTS).stat().st_size))
    del trunks[:]
    same(without, finished(lab.trainer(run, "with", prefix)))
    assert sum(trunks) == computed


# --- who shares what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_study_says_is_frozen_is_frozen_in_the_network(lab, strategy):
    (run,) = lab.runs([strategy])
    model = adapted(load_system(run.settings), run, load_system(run.settings).build())
    inside = model.base_model.model if hasattr(model, "base_model") else model
    assert frozen_depths(inside.aggregator) == run.prefix_cut == {"A": 4, "B": 2, "C": 0, "qkv": 1}.get(strategy)


def test_runs_share_a_prefix_if_the_frozen_part_computes_the_same(lab):
    runs = lab.runs(["A", "B", "C"], rank=[4, 8], seed=[0, 1])
    assert len({run.prefix for run in runs}) == 1 and runs[0].prefix.startswith("fp32-")
    assert lab.runs(["A"], precision="bf16")[0].prefix != runs[0].prefix != lab.runs(["A"], data={"frames": 2})[0].prefix
    assert lab.runs(["A"], training={"compile": True})[0].prefix is None and lab.runs(["all"])[0].prefix is None


def test_uses_are_counted_over_epochs_ranks_and_seeds(lab):
    def counts(augment=None, data=None, **axes):
        runs = lab.runs(["A"], augment, data=data, **axes)
        samples = load_system(runs[0].settings).samples(lab.folders, train=True)
        return len(samples), [use.count for use in training_uses(runs, samples)]

    steps = 5 * 2  # samples of a run
    size, found = counts()
    assert sum(found) == steps and len(found) == size, "a run of several epochs"
    assert sum(counts(seed=[0, 1], rank=[4, 8])[1]) == 4 * steps
    assert sum(counts(AUGMENTED, seed=[0, 1])[1]) < 2 * steps, "of samples that are drawn anew, most are used once"
    assert sum(counts(AUGMENTED, rank=[4, 8])[1]) == 2 * steps, "ranks see the same"
    assert sum(counts(data={"multi_scale": [28, 42], "resolution": [28, 42]}, rank=[4, 8])[1]) == 2 * steps


def test_held_out_samples_are_used_by_every_run_and_by_the_pretrained_network(lab):
    runs = lab.runs(["A"], seed=[0, 1])
    samples = load_system(runs[0].settings).samples(lab.folders, train=False)
    assert {use.count for use in held_out_uses(runs, samples)} == {3}


def test_draws_that_are_alike_have_the_same_images(lab):
    for augment, data in ((None, {}), (AUGMENTED, {}), (None, {"multi_scale": [14, 28, 42], "resolution": [28, 42]})):
        (run,) = lab.runs(["A"], augment, data=data)
        samples = load_system(run.settings).samples(lab.folders, train=True)
        seen: dict[tuple, torch.Tensor] = {}
        for draw in (Draw(seed, epoch, step, 0) for seed in (0, 1) for epoch in (0, 1) for step in (0, 1)):
            images = samples[draw]["images"]
            assert torch.equal(seen.setdefault(samples.alike(draw), images), images)
        assert len(seen) == (1 if augment is None and not data else 4 if not data else 8)
