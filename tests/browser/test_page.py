"""The pages in a real browser: what a reader clicks, types, prints; with a phone, with a keyboard, without JavaScript.

Whatever a test does: no message on the console, no request but for files beside the page.
"""

import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debian import need
from pages import HOSTILE, large_report, loss, small_report
from playwright.sync_api import Browser, Page, expect, sync_playwright
from report_study import with_fates

from ablation.report.index import StudyEntry, index_page
from ablation.report.page.page import report_page
from ablation.report.study_report import report_of

pytestmark = pytest.mark.page

AXE = "axe-core@4.14.1"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE, PHONE = {"width": 1400, "height": 1000}, {"width": 360, "height": 740}
MOST_BYTES = 5 << 20
FATES = {("B", 4): ["oom", "completed", "diverged"], ("C", 16): ["oom (predicted)"] * 3}  # of the demo study's runs
RUN, WITHOUT_RESULT = "B-r16-b2x1-fp32-s1-00000004", "C-r16-b2x1-fp32-s2-00000008"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need(chromium="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The source of axe-core, by npm."""
    need(npm="npm")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", AXE, "--silent"], cwd=folder, check=True, timeout=120)
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory) -> dict[str, str]:
    """The pages that the tests open, by name."""
    folder = tmp_path_factory.mktemp("pages")
    entry = {"headline": f"It went well {HOSTILE}.", "day": "2026-11-22", "outcomes": {"completed": 8, "OOM": 1}}
    studies = [
        StudyEntry(name, title, "demo", files={"page": f"{name}.html", "PDF": "x.pdf"}, **entry)
        for name, title in (("small", HOSTILE), ("large", "Large"))
    ]
    texts = {
        "small": report_page(small_report(folder)),
        "large": report_page(large_report()),
        "index": index_page(studies),
        "study": report_page(report_of(with_fates(folder / "study", FATES), "vggt-eth3d", folder / "study")),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


@pytest.fixture
def opened(browser, addresses) -> Iterator[Any]:
    """Opens a page in a fresh window: ``opened("small", viewport=PHONE)``. Afterwards nobody must have complained."""
    complaints, contexts = [], []

    def listen(page: Page) -> None:
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a script of others ran: {dialog.message}"))
        page.on("request", lambda request: re.match("file:|data:", request.url) or complaints.append(request.url))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))

    def open_page(name: str, fragment: str = "", viewport=WIDE, **options: Any) -> Page:
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        listen(page)
        page.goto(addresses[name] + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def table(page: Page, name: str):
    return page.locator(f"table[aria-labelledby='table-{name}']")


def column(page: Page, name: str, number: int) -> list[str]:
    """The shown texts of a column."""
    cells = table(page, name).locator(f"tbody tr:not(.group) > :nth-child({number})")
    return [text.strip() for text in cells.filter(visible=True).all_inner_texts()]


def head(page: Page, name: str, text: str):
    return table(page, name).get_by_role("columnheader", name=text)


# --- tables ------------------------------------------------------------------------------------------------------------


def test_a_click_on_a_head_sorts_and_a_third_one_undoes_it(opened):
    page = opened("small")
    before = ["1.200", "0.500 ± 0.010", "0.250 ± 0.010", "0.750 ± 0.010", "OOM"]
    assert column(page, "main", 2) == before
    mae = head(page, "main", "depth MAE")
    mae.get_by_role("button").click()
    assert column(page, "main", 2) == ["1.200", "0.250 ± 0.010", "0.500 ± 0.010", "0.750 ± 0.010", "OOM"]
    expect(mae).to_have_attribute("aria-sort", "ascending")
    mae.get_by_role("button").click()
    # What is not known comes last either way, and the model before training stays on top.
    assert column(page, "main", 2) == ["1.200", "0.750 ± 0.010", "0.500 ± 0.010", "0.250 ± 0.010", "OOM"]
    expect(mae).to_have_attribute("aria-sort", "descending")
    mae.get_by_role("button").click()
    assert column(page, "main", 2) == before and mae.get_attribute("aria-sort") is None


def test_where_higher_is_better_the_highest_comes_first_and_numbers_sort_as_numbers(opened):
    page = opened("small")
    head(page, "main", "score").get_by_role("button").click()
    assert column(page, "main", 3) == ["–", "100", "10", "9", "–"]
    assert table(page, "main").locator("[aria-sort]").count() == 1


def test_rows_below_a_heading_stay_there(opened):
    page = opened("small")
    head(page, "ladder", "memory").get_by_role("button").click()
    shown = table(page, "ladder").locator("tbody tr > :first-child").all_inner_texts()
    assert shown == ["on one GPU", "way 1", "way 2", "way 3", "on two GPUs", "way 4", "way 5", "way 6"]


def test_words_and_choices_filter(opened):
    page = opened("small")
    search = page.get_by_role("searchbox", name="Filter: Runs")
    search.fill("s1 B-R16")
    assert column(page, "runs", 2) == ["B"]
    expect(page.get_by_role("status").filter(has_text="1 of 9 rows")).to_be_visible()
    search.fill("")
    page.get_by_label("outcome").select_option("OOM")
    assert column(page, "runs", 3) == ["OOM"]
    page.get_by_label("outcome").select_option("all")
    page.get_by_label("strategy").select_option("C")
    assert column(page, "runs", 2) == ["C"] * 3
    search.fill("nothing has this")
    assert column(page, "runs", 2) == []
    assert page.get_by_role("searchbox").count() == 1  # short tables have none


def test_numbers_stand_right_and_the_best_is_bold(opened):
    page = opened("small")
    best = table(page, "main").locator("tbody strong")
    assert best.all_inner_texts() == ["0.250 ± 0.010"]
    assert best.evaluate("found => getComputedStyle(found).fontWeight") in ("700", "bolder")
    assert best.evaluate("found => getComputedStyle(found.closest('td')).textAlign") == "right"
    assert table(page, "main").locator("tr.baseline").inner_text().split()[:2] == ["A", "baseline"]


def test_the_head_stays_in_sight_while_a_long_table_scrolls(opened):
    page = opened("large")
    box = table(page, "runs").locator("xpath=..")
    box.evaluate("box => { box.scrollTop = 3000; }")
    top = box.bounding_box()["y"]
    assert abs(table(page, "runs").locator("thead th").first.bounding_box()["y"] - top) <= 1


# --- from a number to its runs -------------------------------------------------------------------------------------------


def test_a_number_leads_to_its_runs_and_each_to_all_that_is_known_of_it(opened):
    page = opened("small")
    number = page.get_by_role("link", name="0.250 ± 0.010")
    number.click()
    dialog = page.get_by_role("dialog", name="3 runs")
    expect(page).to_have_url(re.compile("#runs=3-5$"))
    expect(dialog.locator("tbody th")).to_have_text([f"B-r16-b2x1-fp32-s{seed}-0000000{seed + 3}" for seed in range(3)])
    dialog.get_by_role("link", name="s1").click()
    run = page.get_by_role("dialog", name="B-r16-b2x1-fp32-s1-00000004")
    expect(page).to_have_url(re.compile("#run=B-r16-b2x1-fp32-s1-00000004$"))
    expect(run).to_be_visible()
    text = run.inner_text()
    for known in ("strategy", f"{loss(4):.3f} m", "1.250 GiB", "node<1>", "0123456789ab", "runs=B-r16-b2x1-fp32-s1-00000004"):
        assert known in text
    curve = run.get_by_role("img", name="Training loss from 1 at step 1 to 0.0084")
    assert {"step", "loss", "100", "0.5"} <= set(curve.locator("text").all_text_contents())
    assert curve.locator("path").get_attribute("d").count("L") == 118  # a loss that is not finite is left out
    assert run.get_by_role("link", name="log").get_attribute("href") == "runs/B-r16-b2x1-fp32-s1-00000004/trainer.log"
    picture = run.get_by_role("img", name="view #1")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.naturalWidth === 900", arg=picture.element_handle())
    run.get_by_role("link", name="List").click()
    page.get_by_role("dialog", name="3 runs").get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).not_to_have_url(re.compile("#run"))
    expect(number).to_be_focused()


def test_a_number_of_one_run_leads_straight_to_it_and_back_goes_back(opened):
    page = opened("small")
    page.get_by_role("link", name="100", exact=True).click()
    expect(page.get_by_role("dialog", name="C-r16-b2x1-fp32-s0-00000006")).to_be_visible()
    expect(page.get_by_role("link", name="List")).to_be_hidden()
    page.go_back()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("link", name="1 OOM").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"out of memory {HOSTILE}")
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)  # it never came to an end, so there is nothing to repeat


def test_an_address_opens_the_run_it_names(opened):
    page = opened("small", "#run=A-r16-b2x1-fp32-s2-00000002")
    expect(page.get_by_role("dialog", name="A-r16-b2x1-fp32-s2-00000002")).to_be_visible()
    for strange in ("#run=nobody", "#runs=77-x", "#run=", "#%"):
        expect(opened("small", strange).get_by_role("dialog")).to_have_count(0)


def test_the_command_that_repeats_a_run_can_be_copied(opened):
    page = opened("small", "#run=A-r16-b2x1-fp32-s0-00000000")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status").filter(has_text="copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("snakemake verify --profile local") and copied.endswith("A-r16-b2x1-fp32-s0-00000000")


def test_everything_works_with_a_keyboard_alone(opened):
    page = opened("small")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"

    def tab_to(name: str, role: str) -> None:
        wanted = page.get_by_role(role, name=name)
        for _ in range(60):
            if wanted.evaluate_all("found => found.includes(document.activeElement)"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"no Tab leads to {name}")

    tab_to("depth MAE, m ↓", "button")
    page.keyboard.press("Enter")
    assert column(page, "main", 2)[1] == "0.250 ± 0.010"
    tab_to("0.250 ± 0.010", "link")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="3 runs")).to_be_visible()
    tab_to("B-r16-b2x1-fp32-s0-00000003", "link")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="B-r16-b2x1-fp32-s0-00000003")).to_be_visible()
    tab_to("Copy", "button")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("link", name="0.250 ± 0.010")).to_be_focused()


def test_every_number_of_a_study_s_main_table_leads_to_runs(opened):
    page = opened("study")
    numbers = table(page, "main").locator("tbody tr:not(.before) a")
    assert numbers.count() > 20
    for address in set(numbers.evaluate_all("links => links.map(link => link.getAttribute('href'))")):
        page.evaluate("address => { location.hash = address; }", address)
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.locator("#detail-title").inner_text() not in ("", "Run")


# --- where it is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small", "large", "index", "study"])
def test_a_phone_shows_all_without_scrolling_sideways_but_in_tables(opened, name):
    page = opened(name, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    if name == "small":
        box = page.locator(".scroll").first
        assert box.evaluate("box => getComputedStyle(box).overflowX") == "auto"
        page.get_by_role("link", name="0.250 ± 0.010").click()
        page.get_by_role("dialog").get_by_role("link", name="s1").click()
        expect(page.get_by_role("dialog", name=RUN)).to_be_visible()
        assert page.get_by_role("dialog").bounding_box()["width"] <= PHONE["width"]
        assert page.evaluate("document.getElementById('detail').scrollWidth") <= PHONE["width"]


def test_paper_shows_all_rows_and_settings_and_no_controls(opened):
    page = opened("small", "#run=A-r16-b2x1-fp32-s0-00000000")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("searchbox").fill("s1")
    page.emulate_media(media="print")
    assert len(column(page, "runs", 1)) == 9
    for hidden in ("nav", ".controls", "dialog", ".files"):
        assert not page.locator(hidden).first.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.get_by_text("a: 1").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_paper_takes_a_large_study(opened):
    page = opened("large")
    page.emulate_media(media="print")
    assert len(column(page, "runs", 1)) == 1000


def test_without_javascript_all_tables_and_figures_stand(opened):
    page = opened("large", java_script_enabled=False)
    assert table(page, "runs").locator("tbody tr").filter(visible=True).count() == 1000
    page = opened("small", java_script_enabled=False)
    assert page.get_by_role("button").count() == page.get_by_role("searchbox").count() == 0
    assert column(page, "main", 1)[1:] == ["A baseline", "B", "C", "D"]
    for name in ("memory", "loss"):
        assert page.get_by_role("img", name=f"A line that rises from 1 to 3, {name}").bounding_box()["height"] > 200


def test_figures_and_panels_are_seen(opened):
    page = opened("small")
    shown = page.locator("main img")
    assert shown.count() == 4
    assert all(shown.evaluate_all("images => images.map(image => image.complete && image.naturalWidth > 100)"))
    # The SVG keeps its own style: without it matplotlib's lines would be filled with black.
    pixels = page.locator("figure img").first.screenshot()
    assert len(pixels) > 3000


def test_a_thousand_runs(opened, addresses):
    assert Path(addresses["large"].removeprefix("file://")).stat().st_size < MOST_BYTES
    page = opened("large")
    assert len(column(page, "runs", 1)) == 200
    head(page, "runs", "depth MAE").get_by_role("button").click()
    losses = sorted(f"{loss(number):.3f}" for number in range(1000))
    assert column(page, "runs", 4) == losses[:200]  # the smallest of all, not of those that were shown
    page.get_by_role("searchbox").fill("000003e7")
    assert column(page, "runs", 4) == [f"{loss(999):.3f}"]
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Show all 1000 rows").click()
    assert column(page, "runs", 4) == losses
    page.get_by_role("link", name="1000 completed").click()
    expect(page.get_by_role("dialog", name="1000 runs").locator("tbody tr")).to_have_count(1000)


# --- for everybody -------------------------------------------------------------------------------------------------------


def violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    assert len(found["passes"]) > 10
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found["violations"]]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize(
    "where",
    ["small", "small#runs=0-8", "small#run=B-r16-b2x1-fp32-s1-00000004", "small#run=C-r16-b2x1-fp32-s2-00000008", "index"],
)
def test_axe_finds_nothing(opened, axe, where, viewport):
    name, _, fragment = where.partition("#")
    page = opened(name, f"#{fragment}" if fragment else "", viewport=viewport)
    if where == "small":
        head(page, "main", "depth MAE").get_by_role("button").click()
        page.locator("summary").click()
    assert violations(page, axe) == []


def test_the_index_leads_to_the_pages(opened):
    page = opened("index")
    assert page.get_by_text(f"It went well {HOSTILE}.").count() == 2
    page.get_by_role("main").get_by_role("link", name="Large").click()
    expect(page.get_by_role("heading", name="A large study")).to_be_visible()
