"""The page shows all there is to show, needs nothing but itself, and believes nobody. In a browser: tests/browser."""

import base64
import hashlib
import json
import re
from html import unescape
from pathlib import Path

import pytest
from conftest import STUDY
from PIL import Image
from report_study import with_fates, write_study

from ablation.report.content import Panels, Report, RunDetail, Section
from ablation.report.details import run_details
from ablation.report.index import index_page, studies_of
from ablation.report.origins import origin_table
from ablation.report.page.page import link, report_page
from ablation.report.page.pictures import BUDGET
from ablation.report.results import Results
from ablation.report.study_report import report_of
from ablation.resolved import save_study
from ablation.study import load_study
from ablation.sweep import expand


def page_of(results: Results, folder: Path) -> str:
    return report_page(report_of(results, "s", folder))


def data_of(page: str) -> list[dict]:
    """What the page's script knows of the runs."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])["runs"]


def report_with(runs=(), blocks=()) -> Report:
    return Report("s", "S", "demo", ["It is so."], [Section("one", "One", blocks=blocks)], list(runs), "a: 1\n")


def detail(**known) -> RunDetail:
    nothing = {"axes": {}, "numbers": {}, "remark": "", "origin": {}, "command": ""}
    return RunDetail(**{"id": "A-1", "outcome": "completed", **nothing, **known})


# --- what stands on it -------------------------------------------------------------------------------------------------


def test_no_run_is_dropped_whatever_became_of_it(tmp_path, demo_study):
    runs = expand(demo_study, "s")
    fates = ["completed", "diverged", "oom", "oom (predicted)", "invalid", "not run"]
    _, results = write_study(tmp_path, demo_study, dict(zip((run.id for run in runs), fates, strict=False)))
    page = page_of(results, tmp_path)
    assert all(run.id in page for run in runs)
    assert all(
        word in page for word in ["1 diverged", "non-finite loss", "OOM (predicted)", "because", "1 invalid", "1 not run"]
    )
    assert [run["outcome"] for run in data_of(page)][:6] == [fate.replace("oom", "OOM") for fate in fates]


def test_memory_measured_under_another_card_s_budget_says_so(tmp_path):
    page = page_of(with_fates(tmp_path, {}), tmp_path)
    assert "CUDA allocator, peak allocated, emulated rtx4090" in page


def test_a_study_of_which_nothing_ran_still_reports(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study, {run.id: "invalid" for run in expand(demo_study, "s")})
    page = page_of(results, tmp_path)
    assert "nothing to compare" in page and "snakemake verify" not in page


def test_published_claims_stand_in_the_report(tmp_path, scene_root):
    """The refuted one first and marked, with what is ours; a study that names no claims has no such section."""
    data = {"source": "eth3d", "root": str(scene_root), "scenes": ["hall", "yard"], "split": {"test": ["yard"]}}
    _, results = write_study(tmp_path, load_study(STUDY, {"data": data}))
    page = page_of(results, tmp_path)
    section = page[page.index("Published claims</h2>") :]
    refuted, other = section.index("✗ refuted"), section.index("– not comparable")
    assert refuted < other and section.rindex('class="bad"', 0, refuted) > 0
    for words in ("it has 9 images", "nobody weighs it", "it weighs &lt;b&gt;3&lt;/b&gt; kg", "by: a &amp; b"):
        assert words in section
    _, results = write_study(tmp_path / "without", load_study(STUDY, {"claims": "null"}))
    assert "Published claims" not in page_of(results, tmp_path / "without")


def test_contents_lead_to_all_sections(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    page = page_of(results, tmp_path)
    contents = re.findall(r'<li><a href="#([^"]+)">', page)
    assert len(contents) > 5 and contents[0] == "summary" and all(f'id="{name}"' in page for name in contents)


def test_the_summary_comes_before_all_numbers(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    report = report_of(results, "s", tmp_path)
    page = unescape(report_page(report))
    places = [page.index(sentence) for sentence in report.summary]
    assert places == sorted(places) and places[-1] < page.index("<table")


# --- it needs nothing but itself, and believes nobody ------------------------------------------------------------------


def test_the_page_is_self_contained_and_escapes_everything(tmp_path):
    evil = load_study(STUDY, {"title": '<script>alert(1)</script> & "co"'})
    _, results = write_study(tmp_path, evil)
    page = page_of(results, tmp_path)
    assert "<script>alert" not in page and "&lt;script&gt;" in page and "node&lt;1&gt;" in page
    assert [run["origin"]["machine"] for run in data_of(page)] == ["node<1>"] * 12
    assert not re.findall(r'(?:src|href)="(?!data:|runs/|tables/|figures/|#)[^"]*"', page)
    assert "http" not in re.sub(r"http-equiv|https?://www\.(eth3d[^\s<]*|w3\.org/2000/svg)", "", page)
    assert page.count("<figure ") >= 3 and "NaN" not in page
    assert not {"nan", "None"} & {text.strip() for text in re.findall(r"<t[dh][^>]*>([^<]*)", page)}


def test_the_browser_is_told_to_run_and_load_nothing_else(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    page = page_of(results, tmp_path)
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert parts[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    markup = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    assert not re.search(r"<[^>]*\s(on\w+|style)=", markup)


def test_no_text_ends_the_data_of_the_script():
    page = report_page(report_with([detail(remark="</script><script>alert(1)</script>", links={"a b": "runs/A-1/a#b.txt"})]))
    (run,) = data_of(page)
    assert run["remark"].startswith("</script>") and page.count("</script>") == 2
    assert run["links"] == {"a b": "runs/A-1/a%23b.txt"}


def test_curves_are_short_and_hold_what_json_can():
    curve = {"step": list(range(1, 1001)), "loss": [float("nan"), *[1 / 3] * 999]}
    page = report_page(report_with([detail(id=f"A-{number}", curve=curve) for number in range(1000)]))
    runs = data_of(page)
    assert {len(run["curve"]["step"]) for run in runs} == {59} and runs[0]["curve"]["step"][-1] == 1000
    assert runs[0]["curve"]["loss"][-1] == 0.3333
    (alone,) = data_of(report_page(report_with([detail(curve={"step": [1, 2], "loss": [float("inf"), 2.0]})])))
    assert alone["curve"] == {"step": [1, 2], "loss": [None, 2.0]}


def test_a_page_of_many_large_pictures_can_still_be_sent(tmp_path):
    noise = Image.effect_noise((1200, 1200), 90)
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        noise.save(path)
    panels = Panels("views", "Views", "", ["before", "after"], [(path.stem, [path, None]) for path in paths])
    page = report_page(report_with(blocks=[panels]))
    assert page.count("data:image/webp") == 12 and len(page) < BUDGET + (1 << 18)
    assert 'alt="3, before"' in page


@pytest.mark.parametrize(
    ("ids", "address"),
    [(["c"], "#run=c"), (["a", "b", "c"], "#runs=0-2"), (["e", "a", "b"], "#runs=0-1,4"), (["a", "c", "e"], "#runs=0,2,4")],
)
def test_numbers_are_linked_to_their_runs(ids, address):
    assert link(ids, {name: number for number, name in enumerate("abcde")}) == address


# --- runs ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_told_from_the_table_alone_with_links_to_what_is_there(tmp_path, demo_study):
    runs, results = write_study(tmp_path, demo_study, mae={run.id: 0.25 for run in expand(demo_study, "s")})
    (tmp_path / "runs" / runs[0].id / "pictures").mkdir()
    (tmp_path / "runs" / runs[0].id / "pictures" / "view.png").touch()
    first, *_ = run_details(results, "s", tmp_path)
    assert first.axes["strategy"] == "A" and first.axes["seed"] == "0" and first.numbers["depth MAE"] == "0.250 m"
    assert first.numbers["memory, peak allocated"] == "0.400 GiB" and first.numbers["final loss"] == "1"
    assert first.origin["machine"] == "node<1>" and first.origin["code"] == "0123456789ab"
    assert first.curve == {"step": [1, 2, 3], "loss": [2.0, 1.5, 1.0]}
    assert set(first.links) == {"result", "history", "origin"}  # the others are not there
    assert first.pictures == [f"runs/{runs[0].id}/pictures/view.png"]
    assert first.command == f"snakemake verify --profile local --config reference={tmp_path} runs={runs[0].id}"
    elsewhere, *_ = run_details(results, "s", tmp_path / "gone")
    assert elsewhere.numbers == first.numbers and not elsewhere.links and not elsewhere.pictures


def test_a_run_that_ran_out_of_memory_has_no_measures_and_says_where_it_ended(tmp_path):
    results = with_fates(tmp_path, {("B", 4): ["oom", "completed", "completed"]})
    (run,) = [run for run in run_details(results, "s", tmp_path) if run.outcome == "OOM"]
    assert "99" not in " ".join(run.numbers.values()) and not {"final loss", "step, median"} & set(run.numbers)
    assert run.remark.startswith("out of memory in backward of step 2") and run.command


def test_what_ran_where(tmp_path, demo_study):
    runs, results = write_study(tmp_path, demo_study, {expand(demo_study, "s")[0].id: "not run"})
    results.runs.loc[5:, "origin.commit"] = "fedcba9876543210"
    results.runs.loc[5:, "origin.changed"] = True
    table = origin_table(results)
    assert [row.cells[0].text for row in table.rows] == ["4", "7"]  # what has not run ran nowhere
    assert table.rows[0].cells[0].runs == [run.id for run in runs[1:5]]
    assert table.rows[0].cells[1].text == "A CPU, 1 thread a process"
    assert [row.cells[4].text for row in table.rows] == ["0123456789ab", "fedcba987654 with local changes"]
    assert "different versions of the code" in table.caption


# --- all studies --------------------------------------------------------------------------------------------------------


def test_the_index_shows_every_study_with_a_report_and_survives_an_old_one(tmp_path, demo_study):
    for name in ("new", "old", "unreported"):
        folder = tmp_path / "demo" / name
        _, results = write_study(folder, demo_study, {expand(demo_study, "s")[0].id: "oom"})
        results.runs.to_parquet(folder / "runs.parquet")
        save_study(folder / "study.json", name, demo_study)
        if name != "unreported":
            (folder / "report.html").touch()
    (tmp_path / "demo/old/study.json").write_text('{"name": "old", "study": {"system": "vggt", "gone": 1}}')
    (tmp_path / "demo/new/report.pdf").touch()
    new, old = studies_of(tmp_path)
    assert new.title == demo_study.title and new.outcomes == {"completed": 11, "OOM": 1} and "depth MAE" in new.headline
    assert new.files == {"page": "demo/new/report.html", "PDF": "demo/new/report.pdf"}
    assert old.title == "old" and "another version" in old.headline
    page = index_page([new, old])
    assert "2 studies" in page and "24 runs" in page and 'href="demo/new/report.pdf"' in page and "<script" not in page
