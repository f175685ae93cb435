"""A published number is confirmed, refuted, or not comparable and why; a wrong file is one clear error with its line."""

import pytest
from conftest import ROOT, STUDY
from hypothesis import given
from hypothesis import strategies as st

from ablation.claims.model import Claim, Moment, load_claims
from ablation.claims.of_study import claims_of
from ablation.claims.quantities import loss_at
from ablation.claims.table import claim_table, summary
from ablation.claims.verdicts import NOT_FULL, Finding, Judge
from ablation.errors import UserError
from ablation.hardware import load_cards
from ablation.report.tables.claims import claim_table as report_table
from ablation.study import load_study
from ablation.sweep import expand
from ablation.systems.hunyuan3d.tokens import token_count
from ablation.systems.vggt.data.eth3d import read_scene
from ablation.systems.vggt.settings import SystemSettings

CLAIMS, CARDS = ROOT / "config/claims", ROOT / "config/hardware"
CARD = load_cards(CARDS)["rtx4090"]
SWEEP = {"rank": 16, "batch": [1, 2], "accumulation": [8, 4], "precision": ["bf16", "fp32"], "seed": [0, 1]}
PLANNED = {
    "trainable_params": 1_262_624, "total_params": 1_158_000_000, "predicted_gib": 20.0, "context_gib": 0.5,
    "activations_gib": 7.0,
}  # fmt: skip
RAN = {
    "outcome": "completed", "device": "cuda", "gpu": CARD.name, "memory.kind": "cuda", "memory.card": "rtx4090",
    "memory.peak_reserved_gib": 10.0, "time.step_median_s": 3.0, "time.samples_per_s": 2.0, "steps": 100, "epochs": 5.0,
    "final_loss": 0.5, "metric.depth_mae": 0.3, "before.depth_mae": 0.4,
}  # fmt: skip


def judge(planned=None, ran=None, on_cards=None, history=lambda run: (), **overrides) -> Judge:
    """For VGGT's study at full size. ``planned``, ``ran``: what the row of a run holds besides, by its axes."""
    study = load_study(STUDY, {"scale": "full", "sweep": SWEEP, **overrides})
    runs = expand(study, "s")
    rows = {
        run.id: {"run": run.id, **PLANNED, **(planned(run.axes) if planned else {}), **((ran(run.axes) if ran else None) or {})}
        for run in runs
    }
    cells = {
        (run.cell_id, card): {"predicted_gib": needed, "budget_gib": 24.0, "verdict": verdict}
        for run in runs
        for card, (needed, verdict) in (on_cards(run.axes) if on_cards else {}).items()
    }
    return Judge(study, runs, rows, cells, load_cards(CARDS), history)


def claim(**fields) -> Claim:
    return Claim.model_validate({"says": "it is so", "source": "a paper", **fields})


def on_gpu(**changes):
    """Every run has completed on a 4090."""
    return lambda axes: {**RAN, **changes}


A = {"strategy": "A", "batch": 1, "precision": "bf16"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"value": 8e6}, Finding("refuted", "0.158 times what was published", "1,262,624", "counted")),
        ({"value": 1.3e6}, Finding("confirmed", "", "1,262,624", "counted")),
        ({"value": 1.3e6, "tolerance": 0.01}, Finding("refuted", "0.971 times what was published", "1,262,624", "counted")),
        ({"at_most": 2e6}, Finding("confirmed", "", "1,262,624", "counted")),
        ({"at_least": 2e6}, Finding("refuted", "", "1,262,624", "counted")),
        ({"at_least": 1e6, "at_most": 1.2e6}, Finding("refuted", "", "1,262,624", "counted")),
    ],
)
def test_a_count_of_a_cell(fields, expected):
    assert judge()(claim(quantity="trainable_params", where=A, **fields)) == expected


def test_shares_and_parts_of_memory():
    assert judge()(claim(quantity="trainable_share", where=A, value=0.0011)).verdict == "confirmed"
    assert judge()(claim(quantity="activations_gb", where=A, value=7.5)) == Finding("confirmed", "", "7.52 GB", "predicted")


def test_memory_is_predicted_until_a_gpu_has_measured_it():
    """20 GiB are 21.5 GB; measured is what was reserved, and the context. A CPU's tensors are no measurement of a card."""
    it = claim(quantity="memory_gb", where=A, value=20)
    assert judge()(it) == Finding("confirmed", "", "21.5 GB", "predicted")
    assert judge(ran=on_gpu())(it) == Finding("refuted", "0.564 times what was published", "11.3 GB", "measured")
    on_cpu = on_gpu(device="cpu", **{"memory.kind": "cpu", "memory.peak_reserved_gib": float("nan")})
    assert judge(ran=on_cpu)(it).basis == "predicted"


def test_a_claim_holds_in_all_its_cells_or_not():
    found = judge(planned=lambda axes: {"predicted_gib": 10.0 * axes["batch"]})(
        claim(quantity="memory_gb", where={"strategy": "A", "precision": "bf16"}, at_most=12)
    )
    assert found == Finding("refuted", "holds in 1 of 2 cells", "10.7 to 21.5 GB", "predicted")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"strategy": "A", "rank": 7}, "the study has no cell with strategy A, rank 7"),
        ({"training.epochs": 3}, "the study has no cell with epochs 3"),
    ],
)
def test_no_such_cell(where, reason):
    found = judge()(claim(quantity="memory_gb", where=where, value=1))
    assert found == Finding("not comparable", reason)


def test_settings_choose_cells_as_axes_do():
    assert judge()(claim(quantity="memory_gb", where={"training.epochs": 20}, at_most=22)).verdict == "confirmed"


@pytest.mark.parametrize(
    ("needed", "verdict", "said", "expected"),
    [
        (15.0, "fits", "fits", "confirmed"),
        (15.0, "fits", "oom", "refuted"),
        (15.0, "fits", "tight", "refuted"),
        (22.0, "fits", "tight", "confirmed"),
        (23.9, "tight", "tight", "confirmed"),
        (23.9, "tight", "fits", "not comparable"),
        (23.9, "tight", "oom", "not comparable"),
        (40.0, "oom", "oom", "confirmed"),
        (40.0, "oom", "tight", "refuted"),
    ],
)
def test_what_becomes_of_a_cell_on_a_card(needed, verdict, said, expected):
    """As predicted for that card. Within the margin only a run can tell; tight leaves a tenth at most."""
    found = judge(on_cards=lambda axes: {"rtx5090": (needed, verdict)})(claim(outcome=said, card="rtx5090", where=A))
    assert (found.verdict, found.basis) == (expected, "predicted") and f"{verdict}: {needed:.1f} of 24 GiB" in found.ours


@pytest.mark.parametrize(
    ("card", "ended", "expected"),
    [
        ("rtx4090", {}, ("refuted", "measured")),
        ("rtx4090", {"outcome": "oom"}, ("confirmed", "measured")),
        ("rtx4090", {"outcome": "oom (predicted)", "device": None}, ("confirmed", "predicted")),
        ("rtx4090", {"device": "cpu"}, ("confirmed", "predicted")),
        ("rtx5090", {}, ("confirmed", "predicted")),
    ],
)
def test_a_run_on_the_card_overrules_the_prediction(card, ended, expected):
    on_cards = {"rtx4090": (40.0, "oom"), "rtx5090": (40.0, "oom")}
    found = judge(ran=on_gpu(**ended), on_cards=lambda axes: on_cards)(claim(outcome="oom", card=card, where=A))
    assert (found.verdict, found.basis) == expected


def test_a_cell_that_could_not_be_predicted():
    unknown = {"predicted_gib": float("nan"), "trainable_params": float("nan")}
    reason = "the plan could not predict the cell"
    assert judge(planned=lambda axes: unknown)(claim(quantity="memory_gb", where=A, value=1)).reason == reason
    assert judge()(claim(outcome="oom", card="rtx5090", where=A)).reason == reason


def test_a_ratio_of_two_cells():
    half = judge(planned=lambda axes: {"predicted_gib": 10.0 if axes["precision"] == "bf16" else 18.0})
    it = {"quantity": "memory_gb", "where": {"precision": "bf16"}, "against": {"precision": "fp32"}}
    assert half(claim(**it, value=0.5)) == Finding("refuted", "1.11 times what was published", "0.556", "predicted")
    assert half(claim(**it, value=0.55)).verdict == "confirmed"
    missing = claim(quantity="memory_gb", where=A, against={"rank": 4}, value=1)
    assert half(missing).reason == "the study has no cells with rank 4 to hold it against"


def test_a_ratio_to_a_cell_without_the_axis():
    """Full fine-tuning has no rank; it is the partner of every rank all the same."""
    strategies = {"whole": {"train": {"full": ["depth_head"]}, "lr": 1e-4}}
    found = judge(lambda axes: {"predicted_gib": 5.0 if axes["rank"] else 20.0}, strategies=strategies)
    it = claim(quantity="memory_gb", where={"strategy": "A"}, against={"strategy": "whole"}, value=0.25)
    assert found(it) == Finding("confirmed", "", "0.25", "predicted")


def test_a_ratio_needs_one_cell_to_be_of():
    """Cells differ in a dotted setting, too; without a word on it, a cell is held against that of the same value."""
    clips = {"sweep": {**SWEEP, "training.clip": [1.0, 0.5]}}
    half = judge(lambda axes: {"predicted_gib": 10.0 if axes["precision"] == "bf16" else 20.0}, **clips)
    it = {"quantity": "memory_gb", "where": {"strategy": "A", "precision": "bf16"}, "value": 0.5}
    assert half(claim(**it, against={"precision": "fp32"})).verdict == "confirmed"
    assert half(claim(**it, against={"precision": "fp32", "training.clip": 0.5})).verdict == "confirmed"
    whole = {"whole": {"train": {"full": ["depth_head"]}, "lr": 1e-4}}
    several = judge(sweep={**SWEEP, "rank": [4, 16]}, strategies=whole)
    ranks = claim(quantity="memory_gb", where={"strategy": "whole"}, against={"strategy": "A"}, value=1)
    assert several(ranks).reason == "the study has 2 cells with strategy A to hold it against"


def test_a_ratio_compares_like_with_like():
    """One cell measured and one predicted: the predictions are compared. Nothing at all of one: nothing is."""
    it = claim(quantity="memory_gb", where={"precision": "bf16"}, against={"precision": "fp32"}, value=1)
    one = judge(ran=lambda axes: RAN if axes["precision"] == "bf16" else None)
    assert one(it) == Finding("confirmed", "", "1", "predicted")
    speed = claim(quantity="samples_per_second", where={"precision": "bf16"}, against={"precision": "fp32"}, value=1)
    assert one(speed) == Finding("not comparable", "needs finished runs")


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        (None, ("not comparable", "needs finished runs")),
        (on_gpu(), ("confirmed", "")),
        (on_gpu(device="cpu"), ("not comparable", "measured on a CPU, whose time says nothing of a GPU's")),
        (on_gpu(**{"time.packed": 1.0}), ("confirmed", "")),
        (on_gpu(**{"time.packed": float("nan")}), ("confirmed", "")),
        (on_gpu(**{"time.packed": 2.0}), ("not comparable", "measured beside others on one card")),
        (on_gpu(gpu="NVIDIA L40S"), ("not comparable", f"measured on NVIDIA L40S, published for {CARD.name}")),
        (on_gpu(outcome="diverged"), ("not comparable", "needs finished runs")),
        (on_gpu(outcome="untrained"), ("not comparable", "needs finished runs")),
    ],
)
def test_a_time_is_of_one_card(ran, expected):
    """100 steps of 3 s in 5 epochs: a minute each."""
    found = judge(ran=ran)(claim(quantity="epoch_minutes", where=A, value=1, card="rtx4090"))
    assert (found.verdict, found.reason) == expected


def test_speeds_are_compared_on_one_device():
    it = claim(quantity="samples_per_second", where={"precision": "bf16"}, against={"precision": "fp32"}, value=1.5)

    def speed(axes, other=CARD.name):
        bf16 = axes["precision"] == "bf16"
        return {**RAN, "time.samples_per_s": 3.1 if bf16 else 2.0, "gpu": CARD.name if bf16 else other}

    assert judge(ran=speed)(it) == Finding("confirmed", "", "1.55", "measured")
    other = judge(ran=lambda axes: speed(axes, "NVIDIA L40S"))(it)
    assert other == Finding("not comparable", "its two cells were measured on different devices")


def test_metrics_against_the_pretrained_model():
    """Two seeds are one cell, and their mean is what counts."""
    scores = judge(ran=lambda axes: {**RAN, "metric.depth_mae": 0.2 + 0.2 * axes["seed"]})
    it = {"quantity": "depth_mae", "where": A, "against": "pretrained"}
    assert scores(claim(**it, at_least=0.7, at_most=0.8)) == Finding("confirmed", "", "0.75", "measured")
    assert scores(claim(**it, at_most=0.7)).verdict == "refuted"
    assert scores(claim(quantity="pretrained.depth_mae", where=A, value=0.85)).ours == "0.4 m"
    assert judge()(claim(**it, at_most=0.7)).reason == "needs finished runs"


def test_the_loss_at_a_moment():
    history = [{"step": step, "epoch": step / 20, "loss": 2 - step / 100} for step in range(1, 101)]
    losses = judge(ran=on_gpu(), history=lambda run: history)
    for at, value in (({"step": 1}, 1.99), ({"step": 50}, 1.5), ({"epoch": 2.5}, 1.5), ({"epoch": 0}, 1.99)):
        assert losses(claim(quantity="loss", at=at, where=A, value=value, tolerance=0.01)).verdict == "confirmed"
    assert losses(claim(quantity="loss", at={"epoch": 6}, where=A, value=1)).reason == "the training was shorter"
    assert losses(claim(quantity="loss", where=A, value=0.5)).verdict == "confirmed"  # the last tenth, as reported


def test_the_loss_at_a_moment_is_a_mean_around_it():
    history = [{"step": step, "loss": float(step % 2)} for step in range(1, 401)]
    assert loss_at(history, Moment(step=200)) == pytest.approx(0.5, abs=0.1)


def test_what_the_workflow_cannot_check_says_why():
    assert judge()(claim(unchecked="nobody weighs it")) == Finding("not comparable", "nobody weighs it")


def test_at_demo_scale_the_network_is_another(demo_study):
    runs = expand(demo_study, "s")
    small = Judge(demo_study, runs, {run.id: PLANNED for run in runs}, {}, load_cards(CARDS))
    for found in (claim(quantity="memory_gb", value=1), claim(outcome="oom", card="rtx4090")):
        assert small(found) == Finding("not comparable", NOT_FULL)


@pytest.mark.parametrize(("photographs", "verdict"), [(5, "confirmed"), (6, "refuted")])
def test_facts_of_the_data_are_counted_where_it_is(scene_root, photographs, verdict):
    data = {"source": "eth3d", "root": str(scene_root), "scenes": ["hall", "yard"], "split": {"test": ["yard"]}}
    here = judge(data=data)
    listed = len(read_scene(scene_root, "hall"))
    found = here(claim(quantity="images", where={"scene": "hall"}, value=photographs - 5 + listed, tolerance=0))
    assert (found.verdict, found.basis, found.ours) == (verdict, "counted", str(listed))
    both = listed + len(read_scene(scene_root, "yard"))
    assert here(claim(quantity="images", value=both, tolerance=0)).verdict == "confirmed"
    elsewhere = judge(data={**data, "root": str(scene_root / "nowhere")})
    assert elsewhere(claim(quantity="images", value=1)) == Finding("not comparable", "the data is not there")


@given(st.floats(1e-3, 1e9), st.floats(0, 0.99), st.floats(0, 0.99), st.floats(-2, 2))
def test_a_wider_tolerance_refutes_nothing_that_a_narrower_one_confirms(value, one, other, off):
    narrow, wide = (claim(quantity="memory_gb", value=value, tolerance=t) for t in sorted((one, other)))
    ours = value * (1 + off)
    assert narrow.holds(value) and wide.holds(value)
    assert wide.holds(ours) or not narrow.holds(ours)


HEAD = "source: a paper\nclaims:\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  a: {says: x, quantity: memory_gb, valeu: 3}", [":3: claims.a.valeu", "did you mean value"]),
        ("  a: {says: x}", [":3: claims.a", "exactly one of quantity, outcome and unchecked"]),
        ("  a: {says: x, quantity: memory_gb, outcome: oom}", [":3: claims.a", "not quantity and outcome"]),
        ("  a: {says: x, quantity: memory_gb}", [":3: claims.a", "either value, or at_least"]),
        ("  a: {says: x, quantity: memory_gb, value: 3, at_most: 4}", [":3: claims.a", "either value, or at_least"]),
        ("  a: {says: x, quantity: memory_gb, at_least: 4, at_most: 3}", [":3: claims.a", "at_least = 4 is above"]),
        ("  a: {says: x, quantity: memory_gb, at_most: 4, tolerance: 0.1}", [":3: claims.a", "tolerance needs a value"]),
        ("  a: {says: x, outcome: oom, value: 4}", [":3: claims.a", "value needs a quantity"]),
        ("  a: {says: x, outcome: ooom}", [":3: claims.a.outcome = 'ooom'", "did you mean oom"]),
        ("  a: {says: x, quantity: memory_gb, value: rank * 2}", [":3: claims.a", "names rank, which is not in where"]),
        ("  a: {says: x, quantity: q, value: \"open('x')\"}", [":3: claims.a", "is not allowed in an expression"]),
        ("  a: {says: x, quantity: memory_gb, value: 3, at: {step: 1}}", [":3: claims.a", "goes with quantity: loss"]),
        ("  a: {says: x, quantity: loss, value: 1, at: {step: 1, epoch: 2}}", [":3: claims.a.at", "one of step and epoch"]),
        ("  a: {quantity: memory_gb, value: 3}", [":3: claims.a.says: is missing"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_clear_error_with_its_line(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + text + "\n")
    with pytest.raises(UserError) as caught:
        load_claims(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and all(word in message for word in words), message
    assert message.count(str(path)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{says: x, quantity: memory, value: 3}",
            ["claims.a.quantity", "quantity 'memory'; did you mean memory_gb"],
        ),
        ("{says: x, quantity: memory_gb, where: {strategy: Z}, value: 3}", ["claims.a.where", "'Z'", "known: A, B, C"]),
        ("{says: x, quantity: memory_gb, where: {rnk: 3}, value: 3}", ["claims.a.where", "did you mean rank"]),
        ("{says: x, quantity: memory_gb, where: {training.epoch: 3}, value: 3}", ["claims.a.where", "training.epoch"]),
        ("{says: x, quantity: memory_gb, against: {btch: 3}, value: 3}", ["claims.a.against", "did you mean batch"]),
        ("{says: x, quantity: memory_gb, against: pretrained, value: 3}", ["claims.a.against", "not known of the pretrained"]),
        ("{says: x, quantity: images, where: {place: hall}, value: 3}", ["claims.a.where", "images is of scene"]),
        ("{says: x, outcome: oom, card: rtx4900}", ["claims.a.card", "did you mean rtx4090"]),
        ("{says: x, outcome: oom}", ["claims.a.outcome: needs a card"]),
    ],
)
def test_a_claim_about_nothing_of_the_study_is_one_clear_error(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{HEAD}  a: {text}\n")
    with pytest.raises(UserError) as caught:
        claims_of(load_study(STUDY, {"claims": "mine"}), tmp_path, CARDS)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ") and all(word in message for word in words), message


def test_a_file_that_is_not_there_and_a_study_without_claims():
    with pytest.raises(UserError, match=r"no file .*vgt-eth3d.yaml; did you mean vggt-eth3d\?"):
        claims_of(load_study(STUDY, {"claims": "vgt-eth3d"}), CLAIMS, CARDS)
    with pytest.raises(UserError, match="claims"):
        load_study(STUDY, {"claims": "../claims/vggt-eth3d"})
    assert claims_of(load_study(STUDY, {"claims": "null"}), CLAIMS, CARDS) == {}


@pytest.mark.parametrize("scale", ["demo", "full"])
def test_the_claims_of_vggt(scale):
    """All of them are about something that the study knows."""
    study = load_study(STUDY, {"scale": scale})
    found = claims_of(study, CLAIMS, CARDS)
    assert {"trainable_params", "images"} < {each.quantity for each in found.values()} and {
        each.card for each in found.values()
    } == {"rtx5090"}


LORA = {"train": {"lora": ["depth_head"]}, "lr": 1e-5}
WHOLE = {"train": {"full": ["depth_head"], "lora": None}, "lr": 1e-5}
ALONE = {"strategy": ["A", "B", "C"], "rank": 16, "batch": 1, "precision": ["bf16", "fp16", "fp32"], "seed": 0}


def stand_in(monkeypatch, name, sweep, strategies, keep=()):
    """A study of VGGT with the axes of another system's, and that system's facts."""
    monkeypatch.setattr(SystemSettings, "facts", lambda self: {"condition_tokens": token_count})
    full = {"scale": "full", "claims": name, "keep": [*keep], "baseline": {}}
    study = load_study(STUDY, {**full, "sweep": {"accumulation": 1, **sweep}, "strategies": strategies})
    return study, claims_of(study, CLAIMS, CARDS), expand(study, name)


def test_the_claims_of_hunyuan3d(monkeypatch):
    """The formula gives a token too many; the table is right. Halving the weights' bytes does not halve the memory."""
    study, claims, runs = stand_in(monkeypatch, "hunyuan3d-4090", ALONE, {"A": WHOLE, "B": LORA, "C": LORA})
    sizes = {"A": 60.0, "B": 18.0, "C": 13.5}
    rows = {
        run.id: {
            "total_params": 3.05e9, "trainable_params": 10.3e6 if run.rank else 3.05e9,
            "predicted_gib": sizes[run.axes["strategy"]] * (1.4 if run.axes["precision"] == "fp32" else 1),
        }
        for run in runs
    }  # fmt: skip
    cards = {(run.cell_id, "rtx4090"): {"predicted_gib": sizes[run.axes["strategy"]], "budget_gib": 23.64, "verdict": "oom"}
             for run in runs}  # fmt: skip
    found = {row["claim"]: row for row in claim_table(claims, Judge(study, runs, rows, cards, load_cards(CARDS)))}
    verdicts = {name: row["verdict"] for name, row in found.items()}
    assert {name for name, verdict in verdicts.items() if verdict == "confirmed"} == {
        "params", "full-oom", "memory-lora", "memory-checkpointing", "checkpointing", "tokens-518", "tokens-384",
    }  # fmt: skip
    refuted = {name for name, verdict in verdicts.items() if verdict == "refuted"}
    assert refuted == {"share", "memory-bf16", "memory-fp16", "formula-518", "formula-384"}
    assert (found["formula-518"]["claimed"], found["formula-518"]["ours"]) == ("1,371", "1,370")
    assert found["speed-bf16"]["reason"] == found["loss-500"]["reason"] == "needs finished runs"


def test_the_claims_of_rdt(monkeypatch):
    sweep = {
        "strategy": ["full", "zero2", "lora"],
        "batch": [32, 16, 4],
        "accumulation": [1, 2, 8],
        "gpus": 8,
        "precision": "bf16",
        "seed": 0,
    }
    strategies = {"full": WHOLE, "zero2": {**WHOLE, "distributed": "zero2"}, "lora": LORA}
    study, claims, runs = stand_in(monkeypatch, "rdt-batch", sweep, strategies, ["batch * accumulation * gpus == 256"])
    needed = {32: 45.0, 16: 30.0, 4: 23.0}
    loss = {32: 0.100, 16: 0.101, 4: 0.120}
    speed = {32: 100.0, 16: 96.0, 4: 80.0}
    rows = {run.id: {**RAN, "gpu": "NVIDIA A100-SXM4-80GB", "final_loss": loss[run.axes["batch"]],
                     "time.samples_per_s": speed[run.axes["batch"]]} for run in runs}  # fmt: skip
    cards = {
        (run.cell_id, name): {"predicted_gib": needed[run.axes["batch"]], "budget_gib": card.usable_gib, "verdict": "fits"}
        for run in runs
        for name, card in load_cards(CARDS).items()
    }
    verdicts = {row["claim"]: row["verdict"] for row in claim_table(claims, Judge(study, runs, rows, cards, load_cards(CARDS)))}
    assert verdicts == {
        "fits-24": "confirmed", "tight-48": "confirmed", "fits-80": "confirmed", "speed-16": "confirmed",
        "speed-4": "refuted", "same-16": "confirmed", "same-4": "refuted",
    }  # fmt: skip


def test_in_a_terminal_and_in_the_report_refuted_claims_come_first():
    claims = {
        "small": claim(quantity="memory_gb", where=A, at_most=30),
        "weighed": claim(unchecked="nobody weighs it"),
        "many": claim(quantity="trainable_params", where=A, value=8e6),
    }
    rows = claim_table(claims, judge())
    assert summary("vggt-eth3d", rows).splitlines() == [
        "vggt-eth3d: 3 claims (1 refuted, 1 confirmed, 1 not comparable)",
        "  refuted    many   8,000,000      1,262,624  counted    0.158 times what was published",
        "  confirmed  small  at most 30 GB  21.5 GB    predicted",
        "  not comparable (1): nobody weighs it",
    ]
    table = report_table(rows)
    assert [row.kind for row in table.rows] == ["bad", "", "before"] and table.caption.startswith("Published by: a paper.")
    assert [cell.text for cell in table.rows[0].cells[:4]] == ["✗ refuted", "it is so", "8,000,000", "1,262,624"]
    several = report_table([{**rows[0], "source": "another"}, *rows[1:]])
    assert several.columns[-1].name == "source" and [row.cells[-1].text for row in several.rows] == [
        "a paper",
        "another",
        "a paper",
    ]
