"""The live view: what it says of each run, from files that others write at that moment."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runfolders import HERE, Results

from ablation.errors import UserError
from ablation.live.attempt import duration
from ablation.live.reading import Files, Seen, as_events, as_record, as_rows
from ablation.live.screen import picture
from ablation.live.study import Study, find_studies
from ablation.live.table import table

GONE = 2**22 + 1  # no process has this number: Linux counts to 2**22


@pytest.fixture
def results(tmp_path):
    """A study of the one run ``r``, on which nothing was done yet."""
    return Results(tmp_path, {"r": {}})


def look(results, files=None):
    return Study(results.folder, files or Files())


def seen(results):
    """State and reason of the run ``r``."""
    run = look(results).runs[0]
    return run.state, run.why


def planned(**columns):
    return lambda r: Results.__init__(r, r.folder.parent.parent / "other", {"r": columns})


def several(*steps):
    return lambda r: [step(r) for step in steps]


# What happened -> the state, and words of the reason.
CASES = {
    "planned": (lambda r: None, "waiting", ""),
    "predicted not to fit": (planned(verdict="oom", reason="needs 30 GiB"), "oom (predicted)", "needs 30 GiB"),
    "impossible": (planned(verdict="invalid", reason="no bf16"), "invalid", "no bf16"),
    "predicted not to fit, tried all the same": (
        several(planned(verdict="oom", reason="needs 30 GiB"), lambda r: r.trains("r")), "training", "",
    ),
    "the job has a log and nothing else yet": (lambda r: r.text("logs/train/r.log", "", ago=5), "starting", ""),
    "the job ended before it began": (
        lambda r: r.text("logs/train/r.log", "a line\nerror: the study changed\n\n", ago=500), "failed", "the study changed",
    ),
    "the job ended with an error of several lines": (
        lambda r: r.text("logs/train/r.log", "a line\nerror: no such card\n  known: a, b\n", ago=500), "failed", "no such card",
    ),
    "the job ended beside a progress bar": (
        lambda r: r.text("logs/train/r.log", "\r 5%| | 1/20 [00:01<?, ?step/s]error: no disk\n\r   \r", ago=500),
        "failed", "no disk",
    ),
    "the job went on after an error": (
        lambda r: r.text("logs/train/r.log", "error: no disk\nrun r on the CPU\n", ago=5), "starting", "",
    ),
    "the job died before it began": (lambda r: r.text("logs/train/r.log", "a line\n", ago=500), "stopped", "left nothing"),
    "waits for a GPU": (lambda r: r.lease("r"), "starting", ""),
    "loads": (several(lambda r: r.start("r", ago=30), lambda r: r.lease("r")), "loading", ""),
    "trains": (lambda r: r.trains("r"), "training", ""),
    "saves": (lambda r: r.trains("r", ago=200, phase="save"), "saving", ""),
    "slow steps": (lambda r: r.trains("r", ago=500, step_s=100.0), "training", ""),
    "no step for long": (lambda r: r.trains("r", ago=500), "stalled", "at step 40 for 8m; a step usually takes 0.5s"),
    "slow steps, the last checkpoint just written": (
        lambda r: r.trains("r", ago=1100, phase="save", step_s=200.0), "saving", "",
    ),
    "slow steps stopped": (lambda r: r.trains("r", ago=1100, step_s=100.0), "stalled", "a step usually takes 2m"),
    "saves for ever": (lambda r: r.trains("r", ago=1000, phase="save"), "stalled", "saving for 17m"),
    "loads for ever": (several(lambda r: r.start("r"), lambda r: r.lease("r")), "stalled", "loading for 83m"),
    "killed elsewhere": (several(lambda r: r.trains("r"), lambda r: r.lease("r", 180)), "stopped", "no sign of life for 3m"),
    "killed here": (
        several(lambda r: r.start("r", 900, 1, HERE, GONE), lambda r: r.lease("r", 16, HERE, GONE)),
        "stopped", f"its process {GONE} is gone",
    ),
    "a beat is late": (several(lambda r: r.trains("r"), lambda r: r.lease("r", ago=100)), "training", ""),
    "killed, and the next attempt has the lease": (
        several(lambda r: r.trains("r", ago=900), lambda r: r.lease("r", process=2)), "starting", "",
    ),
    "the next attempt loads": (
        several(lambda r: r.trains("r", ago=900), lambda r: r.start("r", 20, 2), lambda r: r.lease("r")),
        "loading", "",
    ),
    "left in time": (several(lambda r: r.trains("r"), lambda r: r.end("r", "preempted", "SIGUSR1")), "preempted", "SIGUSR1"),
    "failed": (several(lambda r: r.trains("r"), lambda r: r.end("r", "failed", "UserError: disk full")), "failed", "disk full"),
    "the next job fails before it begins": (
        several(
            lambda r: r.trains("r"),
            lambda r: r.end("r", "preempted", "SIGUSR1"),
            lambda r: r.text("logs/train/r.log", "error: the study changed\n"),
        ),
        "failed", "the study changed",
    ),
    "result on its way": (several(lambda r: r.trains("r"), lambda r: r.end("r", "completed")), "trained", ""),
    "trained": (lambda r: r.trained("r", evaluated=False), "trained", ""),
    "evaluates": (several(lambda r: r.trained("r", evaluated=False), lambda r: r.lease("r")), "evaluating", ""),
    "evaluates without a word": (
        several(
            lambda r: r.trained("r", evaluated=False, ago=2000),
            lambda r: r.text("logs/train/r.log", "a line\n", ago=2000),
            lambda r: r.lease("r"),
        ),
        "stalled", "evaluation: not a word for 33m",
    ),
    "left the evaluation": (several(lambda r: r.trained("r", evaluated=False), lambda r: r.lease("r", 300)), "trained", ""),
    "an error of an earlier attempt": (
        several(
            lambda r: r.trained("r", evaluated=False), lambda r: r.text("logs/train/r.log", "ValueError: no disk\n", ago=99),
        ),
        "trained", "",
    ),
    "evaluation failed": (
        several(
            lambda r: r.trained("r", evaluated=False),
            lambda r: r.text("logs/train/r.log", "Traceback (most recent call last):\n  File\nValueError: no depth\n"),
        ),
        "failed", "evaluation: ValueError: no depth",
    ),
    "evaluation failed, and Snakemake has removed what the job had made": (
        several(
            lambda r: r.trains("r"),
            lambda r: r.end("r", "completed"),
            lambda r: r.text("logs/train/r.log", "Traceback (most recent call last):\n  File\nValueError: no depth\n"),
        ),
        "failed", "evaluation: ValueError: no depth",
    ),
    "finished": (lambda r: r.trained("r"), "completed", ""),
    "finished after a failure": (
        several(lambda r: r.start("r"), lambda r: r.end("r", "failed"), lambda r: r.trained("r")), "completed", "",
    ),
    "out of memory": (
        lambda r: r.trained("r", outcome="oom", oom={"phase": "backward", "step": 2}), "oom", "in phase backward of step 2",
    ),
    "diverged": (
        lambda r: r.trained("r", outcome="diverged", diagnoses=[{"name": "non-finite loss", "step": 7}]),
        "diverged", "non-finite loss at step 7",
    ),
    "untrained": (
        lambda r: r.trained("r", outcome="untrained", diagnoses=[{"name": "no valid target", "step": 20}]),
        "untrained", "no valid target at step 20",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("happened", "state", "why"), CASES.values(), ids=CASES)
def test_a_run_is_in_the_state_that_its_files_tell(results, happened, state, why):
    happened(results)
    run = look(results).runs[0]
    found, reason = run.doing if run.state == "training" else run.state, run.why
    assert found == state
    assert why in reason if why else not reason


def test_a_job_that_waits_for_the_holder_of_the_lease_is_told(results):
    results.trains("r", ago=900)
    results.text(
        "logs/train/r.log",
        "run r on the CPU\n2026 WARNING waiting for the job that trains this run: process 1 on n1, SLURM job 17\n",
    )
    assert seen(results)[1].endswith("; another job waits for it")
    results.lease("r", process=2)  # that one has taken over since
    results.start("r", ago=850, attempt=2, process=2)
    assert "waits" not in seen(results)[1]


def test_the_numbers_of_a_run_under_way_are_those_it_told(results):
    results.trains("r", step=40)
    run = look(results).runs[0]
    assert (run.step, run.total_steps, run.loss, run.memory_gib) == (40, 80, 0.125, 16.5)
    assert (run.samples_per_s, run.node, run.tries) == (16.0, "n1", 1)
    assert table([run], 100, None)[1].text.split() == ["r", "training", "40/80", "0.125", "16.5", "16", "20s", "n1", "1"]


def test_the_numbers_of_a_finished_run_are_its_result(results):
    results.trains("r")
    results.end("r", "completed")
    results.trained("r")
    run = look(results).runs[0]
    assert (run.step, run.total_steps, run.loss, run.memory_gib, run.samples_per_s) == (80, 80, 0.25, 16.8, 16.0)


def test_what_an_earlier_attempt_told_is_not_the_present_ones(results):
    results.trains("r", ago=900, step=40)
    results.start("r", ago=20, attempt=2, host="n2")
    results.lease("r", host="n2")
    run = look(results).runs[0]
    assert (run.loss, run.samples_per_s, run.node, run.tries) == (None, None, "n2", 2)
    assert run.step == 40  # it goes on from a checkpoint at this step or before


@pytest.mark.parametrize("ahead", [-3600, -3, 3, 3600])
def test_clocks_of_other_machines_may_differ(results, ahead):
    results.start("r", ahead=ahead)
    results.progress("r", ahead=ahead)
    results.lease("r", ahead=ahead)
    assert seen(results) == ("training", "")
    results.lease("r", ago=300, ahead=ahead)
    assert seen(results)[0] == "stopped"


def test_who_watches_needs_no_clock_but_its_own():
    assert Seen({}, modified=2000.0, unchanged=0.0).silence(1000.0) == 0  # the file system's clock is ahead
    assert Seen({}, modified=2000.0, unchanged=300.0).silence(1000.0) == 300


@pytest.mark.parametrize("name", ["training.json", "state/attempts.jsonl", "state/progress.json", "state/lease.json"])
def test_a_file_cut_at_any_byte_breaks_nothing(results, name):
    results.trains("r")
    if name == "training.json":
        results.trained("r")
    path = results.folder / "runs/r" / name
    whole = path.read_bytes()
    states = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        study = look(results)
        picture([study], 80, None)
        states.add(study.runs[0].state)
    assert states <= {"training", "starting", "completed"}


def test_what_was_read_stays_while_its_file_is_torn(results):
    files = Files()
    results.trained("r")
    path = results.folder / "runs/r/training.json"
    assert files.read(path, as_record).value["steps"] == 80
    path.write_text(path.read_text()[:30])
    assert files.read(path, as_record).value["steps"] == 80
    path.unlink()
    assert files.read(path, as_record).value is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "step", "phase"]), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["event", "attempt", "time", "host", "process", "how", "reason", "step", "total_steps", "loss", "step_s", "phase"]
NAMES += ["beat", "since", "outcome", "steps", "diagnoses", "oom", "memory", "samples_per_s", "memory_gib", "final_loss"]


@given(
    st.dictionaries(st.sampled_from(NAMES), ANYTHING),
    st.sampled_from(["training.json", "state/attempts.jsonl", "state/progress.json", "state/lease.json", "../../study.json"]),
)
def test_values_of_any_kind_break_nothing(tmp_path_factory, values, name):
    results = Results(tmp_path_factory.mktemp("any"), {"r": {}})
    results.trains("r")
    if name.endswith("jsonl"):
        values = {**values, "event": values.get("event", "start")}
    results.json(f"runs/r/{name}", values)
    for line in picture([look(results)], 80, None):
        assert line.text.isprintable()


def test_text_from_files_does_not_steer_the_terminal(results):
    results.trains("r")
    results.end("r", "failed", "bad \x1b[2J\x07 \u202e thing\nand more")
    lines = picture([look(results)], 80, None)
    assert all(line.text.isprintable() for line in lines)
    assert "bad [2J thing and more" in lines[-1].text


def test_without_a_plan_the_folders_tell_which_runs_there_are(results):
    results.trains("r")
    (results.folder / "plan.csv").unlink()
    study = look(results)
    assert [run.state for run in study.runs] == ["training"]
    assert not study.finished


BARS = "predicting memory:   8%|8  | 1/12 [00:01<00:12,  1.2run/s]"  # standard error's progress, which has no line ends
PLANS = {
    "none was asked for": (None, 0, ["full/s  not planned yet"]),
    "it begins": ("", 5, ["full/s  the plan is being made"]),
    "it goes on": (f"\r{BARS}\r{BARS}", 5, ["full/s  the plan is being made"]),
    "it takes long": (f"\r{BARS}", 1000, ["full/s  the plan is being made"]),
    "it was killed": (f"\r{BARS}", 4000, ["full/s  the plan was not finished: not a word for 67m"]),
    "it failed": (
        "error: hardware: rtx4900 is not a known card\n  known: rtx4090\n  a new card is a new file\n", 5,
        ["full/s  the plan failed", "    hardware: rtx4900 is not a known card"],
    ),
    "it failed beside a bar": (
        f"\r{BARS}error: train: `depth_hed` matches nothing\n\r        \r", 90_000,
        ["full/s  the plan failed", "    train: `depth_hed` matches nothing"],
    ),
    "it failed by a fault of ours": (
        'Traceback (most recent call last):\n  File "a.py"\nZeroDivisionError: division by zero\n', 5,
        ["full/s  the plan failed", "    ZeroDivisionError: division by zero"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("log", "ago", "said"), PLANS.values(), ids=PLANS)
def test_before_there_are_runs_the_log_of_the_plan_tells(results, log, ago, said):
    (results.folder / "plan.csv").unlink()
    if log is not None:
        results.text("logs/plan.log", log, ago)
    assert [line.text for line in picture([look(results)], 80, None)] == said


def test_a_plan_that_failed_is_told_beside_the_runs_there_were(results):
    """The plan before it is gone, and its runs are not."""
    results.trained("r")
    (results.folder / "plan.csv").unlink()
    results.text("logs/plan.log", "error: keep: names no axis\n")
    first, reason, counts, *_ = [line.text for line in picture([look(results)], 80, 20)]
    assert first.startswith("full/s  ") and first.endswith("  the plan failed")
    assert reason == "    keep: names no axis" and counts == "1 runs: 1 completed"


def test_the_plan_that_is_there_did_not_fail(results):
    results.text("logs/plan.log", "error: an earlier one\n", ago=99)
    assert "failed" not in "".join(line.text for line in picture([look(results)], 80, None))


def test_what_needs_a_person_comes_first(tmp_path):
    results = Results(tmp_path, {name: {} for name in ("done", "later", "busy", "lost", "broken")})
    results.trained("done")
    results.trains("busy")
    results.trains("lost", ago=500)
    results.trains("broken")
    results.end("broken", "failed", "no disk")
    lines = [line.text for line in table(look(results).runs, 80, None)]
    assert [line.split()[0] for line in lines if not line.startswith("    ")] == [
        "run",
        "lost",
        "broken",
        "busy",
        "done",
        "later",
    ]
    assert lines[2].startswith("    at step 40")


def test_what_does_not_fit_is_counted(tmp_path):
    results = Results(tmp_path, {f"r{i}": {} for i in range(60)})
    for i in range(30):
        results.trained(f"r{i}")
    results.trains("r50")
    study = look(results)
    lines = [line.text for line in picture([study], 80, 20)]
    assert len(lines) <= 20
    assert lines[0].startswith("full/s  ")
    assert lines[1] == "60 runs: 1 training, 30 completed, 29 waiting"
    assert lines[3].split()[:2] == ["r50", "training"]
    shown = len(lines) - 4
    assert lines[-1] == f"and {60 - shown} more: {30 - (shown - 1)} completed, 29 waiting"
    assert len(picture([study], 80, None)) == 3 + 60


def test_finished_studies_give_way_to_those_under_way(tmp_path):
    done, busy = Results(tmp_path, {"a": {}}, "done"), Results(tmp_path, {"b": {}}, "busy")
    done.trained("a")
    busy.trains("b")
    both = [look(done), look(busy)]

    def runs(studies, height):
        return {line.text.split()[0] for line in picture(studies, 80, height) if line.text.split()} & {"a", "b"}

    assert runs(both, 40) == {"b"}
    assert runs(both, None) == {"a", "b"}
    assert runs(both[:1], 40) == {"a"}


def studies_of(tmp_path, **runs):
    """A study of each name, with so many runs that train, and so many that wait."""
    studies = []
    for name, (training, waiting) in runs.items():
        results = Results(tmp_path, {f"{name}{i}": {} for i in range(training + waiting)}, name)
        for i in range(training):
            results.trains(f"{name}{i}")
        studies.append(look(results))
    return studies


def shown(studies, height):
    """The first words of a picture's lines, which fit the height."""
    lines = [line.text for line in picture(studies, 110, height)]
    assert len(lines) <= height
    return [line.split()[0] for line in lines if line]


def test_what_trains_has_its_lines_before_what_waits(tmp_path):
    studies = studies_of(tmp_path, a=(0, 20), b=(0, 20), t=(2, 10), z=(0, 20))
    (studies[0].runs, studies[0].planned), failed = ([], False), studies[0]
    failed.plan_failed = "no such card"
    first = shown(studies, 29)
    assert [word for word in first if word in ("t0", "t1")] == ["t0", "t1"]
    assert {f"t{i}" for i in range(12)} <= set(first), "all of its runs, before a line of what only waits"
    assert first[0] == "full/t" and [name for name in first if name.startswith("full/")] == [
        "full/t",
        "full/a",
        "full/b",
        "full/z",
    ]


def test_lines_that_a_study_leaves_are_given_to_others(tmp_path):
    """Two train, one of them with more runs than there are lines; all lines are used."""
    studies = studies_of(tmp_path, few=(2, 0), many=(3, 60), rest=(0, 60))
    lines = [line.text for line in picture(studies, 110, 30)]
    assert len(lines) == 30 and {"few0", "few1", "many0", "many1", "many2"} <= set(shown(studies, 30))
    assert "and" in shown(studies, 30) and not any(word.startswith("rest") for word in shown(studies, 30))
    assert any(word.startswith("rest") for word in shown(studies, 110)), "what waits has what is left"


def test_a_finished_study_has_its_table_beside_plans_that_failed(tmp_path):
    done, never = Results(tmp_path, {"a": {}}, "done"), Results(tmp_path, {"b": {}}, "never")
    done.trained("a")
    (never.folder / "plan.csv").unlink()
    never.text("logs/plan.log", "error: no such card\n")
    assert shown([look(never), look(done)], 24) == ["full/never", "no", "full/done", "1", "run", "a"]


@pytest.mark.parametrize("height", [1, 2, 5, 9, 12, 20, 40])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_picture_fits_its_height_and_what_trains_stands_first(tmp_path, height, count):
    waiting = {f"a{i}": (0, 3) for i in range(count)}
    studies = studies_of(tmp_path, **waiting, train=(1, 1))
    first = shown(studies, height)
    assert first[0] == "full/train" and (height < 9 or "train0" in first)


def test_studies_for_which_there_is_no_line_are_counted(tmp_path):
    studies = studies_of(tmp_path, **{f"a{i}": (0, 3) for i in range(12)})
    lines = [line.text for line in picture(studies, 80, 9)]
    assert lines[-1] == "and 9 more studies" and sum(line.startswith("full/") for line in lines) == 3


@pytest.fixture
def wide(tmp_path):
    """A study with long names and numbers."""
    names = [f"{s}-r{rank}-b1x8-bf16-s{seed}-{seed:08x}" for s in "ABC" for rank in (4, 64) for seed in range(3)]
    results = Results(tmp_path, {name: {} for name in names}, steps=30000)
    for name in names[:-2]:
        results.trains(name, step=12345, total_steps=30000)
    results.trains(names[-2], ago=5000, total_steps=30000)
    results.trained(names[-1], steps=30000, total_steps=30000)
    return look(results)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_lines_fit_the_terminal(wide, width):
    lines = [line.text for line in picture([wide], width, None)][1:]
    assert max(map(len, lines)) <= width
    assert any("training" in line for line in lines)


def test_eighty_columns_hold_everything(wide):
    head, *lines = [line.text for line in table(wide.runs, 80, None)]
    assert head.split() == ["run", "state", "step", "loss", "GiB", "samples/s", "left", "node", "try"]
    names = [line.split()[0] for line in lines if not line.startswith("    ")]
    assert len(set(names)) == 18
    assert "A-r4-b1x8-bf16-s0" in names
    assert "A-r4-…-s0" in table(wide.runs, 75, None)[3].text
    assert "A-r4-b1x8-bf16-s0-00000000" in table(wide.runs, 120, None)[3].text


def test_progress_counts_the_steps_of_all_runs(tmp_path):
    results = Results(tmp_path, {name: {} for name in "abcd"} | {"e": {"verdict": "oom"}}, steps=80)
    results.trained("a")
    results.trains("b", step=40)
    assert look(results).done() == (80 + 40) / (4 * 80)


def test_time_left_is_at_least_that_of_the_slowest(tmp_path):
    results = Results(tmp_path, {"a": {}, "b": {}}, steps=80)
    results.trains("a", step=40, step_s=0.5)
    results.trains("b", step=0, step_s=10.0)
    assert look(results).left() == (800.0, 2)


def test_time_left_is_the_work_left_by_as_many_as_train(tmp_path):
    results = Results(tmp_path, {name: {} for name in "abcdefgh"}, steps=80)
    results.trains("a", step=40, step_s=0.5)
    results.trains("b", step=40, step_s=0.5)
    assert look(results).left() == ((40 + 40 + 6 * 80) * 0.5 / 2, 2)


def test_a_run_to_come_is_as_slow_as_its_cell(tmp_path):
    cells = {"a0": ("A", 0), "b0": ("B", 0), "b1": ("B", 1)}
    results = Results(tmp_path, {name: {"strategy": s, "seed": seed} for name, (s, seed) in cells.items()}, steps=80)
    results.trained("a0", time={"step_median_s": 1.0})
    results.trained("b0", time={"step_median_s": 3.0})
    assert look(results).left() == (240.0, 1)


def test_where_epochs_are_given_steps_are_guessed_from_the_samples_of_others(tmp_path):
    runs = {"a": {"effective_batch": 8, "training.epochs": 2}, "b": {"effective_batch": 16, "training.epochs": 4}}
    results = Results(tmp_path, runs, steps=None)
    assert look(results).left() is None  # nothing is known yet
    results.trains("a", step=40, total_steps=80, step_s=0.5)
    assert look(results).left() == (40 * 0.5 + 80 * 0.5 * 2, 1)


def test_a_second_look_reads_what_changed_and_nothing_else(tmp_path):
    results = Results(tmp_path, {f"r{i}": {} for i in range(20)})
    for i in range(10):
        results.trained(f"r{i}")
    results.trains("r10")
    files, read = Files(), []

    def counting(parse):
        def counted(path):
            read.append(path.name)
            return parse(path)

        return counted

    parsers = {parse: counting(parse) for parse in (as_record, as_rows, as_events)}
    plain = files.read
    files.read = lambda path, parse: plain(path, parsers.get(parse, parse))
    picture([look(results, files)], 80, None)
    assert read.count("training.json") == 10
    read.clear()
    results.progress("r10", step=41)
    assert look(results, files).runs[10].step == 41
    picture([look(results, files)], 80, None)
    assert read == ["progress.json"]


def test_studies_are_those_that_were_started(tmp_path):
    Results(tmp_path, {"r": {}}, "one")
    Results(tmp_path, {"r": {}}, "two")
    (tmp_path / "full/data/part").mkdir(parents=True)
    assert [folder.name for folder in find_studies(tmp_path, [])] == ["one", "two"]
    assert [folder.name for folder in find_studies(tmp_path, ["two"])] == ["two"]
    assert [folder.name for folder in find_studies(tmp_path, ["full/two"])] == ["two"], "as the screen names it"
    with pytest.raises(UserError, match=re.escape("has no study 'tow'; did you mean two?")):
        find_studies(tmp_path, ["tow"])
    assert find_studies(tmp_path / "nothing", []) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.314, "0.31s"),
        (42, "42s"),
        (720, "12m"),
        (7800, "2h10m"),
        (35 * 3600, "35h00m"),
        (76 * 3600, "3d04h"),
        (1e9, "11574d01h"),
    ],
)
def test_times_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_huge_log_is_read_from_its_end(results):
    results.text("logs/train/r.log", "x" * 10_000_000 + "\nerror: no\n", ago=9)
    assert seen(results) == ("failed", "no")


def test_lines_of_attempts_that_are_torn_are_left_out(tmp_path):
    path = tmp_path / "attempts.jsonl"
    path.write_text(json.dumps({"event": "start", "time": time.time()}) + "\n" + '{"event": "en')
    assert [event["event"] for event in as_events(path)] == ["start"]
