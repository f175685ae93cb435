"""What a study's baseline stands for: one cell, one for each level of the axes it leaves open, or an error before any job."""

import re
import shlex

import pytest
from conftest import ROOT
from report_runs import made
from report_study import with_fates, write_study

from ablation.baseline import check_baseline, compared
from ablation.errors import UserError
from ablation.parsed import parse_studies
from ablation.report.comparisons import differences
from ablation.report.study_report import report_of
from ablation.report.tables.differences import difference_table
from ablation.report.tables.main import main_table
from ablation.report.words import summary
from ablation.study import load_study
from ablation.sweep import expand
from ablation.yamlfile import load_yaml, parse_yaml

STUDIES = ROOT / "config/studies"
COMMANDS = re.compile(r"snakemake .*--config .*")


def parsed(**changes):
    return parse_studies({"studies": "vggt-eth3d", "scale": "demo", **changes}, ROOT / "config")


def settings(text: str) -> dict:
    """What follows ``--config``."""
    words = shlex.split(text.replace("`", " "), comments=True)
    after = words[words.index("--config") + 1 :]
    pairs = [word.partition("=") for word in after[: next((i for i, w in enumerate(after) if w.startswith("-")), None)]]
    return {key: parse_yaml(value) for key, equals, value in pairs if equals}


@pytest.mark.parametrize(
    ("changes", "said", "remedy"),
    [
        (
            {"sweep": {"rank": [8, 32]}},
            "is {strategy: A, rank: 16}; nearest: {strategy: A, rank: 8}, {strategy: A, rank: 32}",
            8,
        ),
        ({"baseline": {"rank": 32}}, "no cell of the sweep is {strategy: A, rank: 32}; nearest: {strategy: A, rank: 16}", 16),
    ],
)
def test_a_baseline_that_is_no_cell_is_an_error_that_says_how_to_name_one(changes, said, remedy):
    with pytest.raises(UserError) as raised:
        parsed(**changes)
    assert said in str(raised.value)
    how = settings(re.search(r"(--config '.*?')", str(raised.value))[1])
    assert how == {"baseline": {"rank": remedy}}
    assert parsed(**{**changes, **how}).studies["vggt-eth3d"].baseline == {"strategy": "A", "rank": remedy}
    assert parsed(**changes | {"baseline": None}).studies["vggt-eth3d"].baseline is None


def test_a_single_cell_is_compared_with_nothing():
    assert parsed(sweep={"strategy": "B", "rank": 4})


def test_a_rank_that_the_baseline_does_not_have_is_left_out():
    full = {"strategies": {"C": {"train": {"lora": None, "full": ["depth_head"]}}}, "baseline": {"strategy": "C"}}
    with pytest.raises(UserError, match=r"nearest: \{strategy: C\}.*\n.*in the study's file"):
        parsed(**full, claims=None)


def test_a_baseline_of_several_cells_without_one_for_each_is_an_error_that_names_them():
    rates = {"sweep": {"strategies.A.lr": [1e-3, 2e-3]}}
    with pytest.raises(UserError) as raised:
        parsed(**rates)
    words = str(raised.value)
    assert "is 2 cells, {strategies.A.lr: 0.001}, {strategies.A.lr: 0.002}, none of which is as 4 other cells are" in words
    how = settings(re.search(r"(--config '.*?')", words)[1])
    assert how == {"baseline": {"strategies.A.lr": 1e-3}} and parsed(**rates, **how)


def test_seeds_are_no_part_of_a_baseline():
    with pytest.raises(UserError, match="leave out seed"):
        parsed(baseline={"seed": 0})


@pytest.mark.parametrize("scale", ["demo", "full"])
@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_s_cells_have_a_baseline(path, scale):
    study = load_study(path, {"scale": scale})
    check_baseline(study, path.stem, expand(study, path.stem))


def test_what_the_documentation_lays_over_a_study_can_be_parsed():
    pages = [ROOT / "README.md", ROOT / "config/config.yaml", *sorted((ROOT / "docs").glob("*.md"))]
    found = {line for page in pages for line in COMMANDS.findall(page.read_text()) if "sweep=" in line}
    assert len(found) >= 3
    for line in found:
        assert parse_studies(load_yaml(ROOT / "config/config.yaml") | settings(line), ROOT / "config")


def test_the_study_of_the_documentation_can_be_parsed_at_both_scales(tmp_path):
    (example,) = re.findall(r"```yaml\n(system: vggt .*?)```", (ROOT / "docs/study.md").read_text(), re.DOTALL)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/example.yaml").write_text(example)
    for scale in ("demo", "full"):
        assert parse_studies({"studies": "example", "scale": scale, "claims": None}, tmp_path)


def test_each_cell_has_the_baseline_of_its_own_values_where_axes_are_left_open():
    cells = [{"strategy": s, "rank": r, "batch": b} for s in "AB" for r in (4, 16) for b in (1, 2)]
    found = compared({"strategy": "A", "rank": 16}, cells)
    assert found.open == ["batch"] and found.of == [2, 3, 2, 3, 2, 3, 2, 3]
    assert compared({"strategy": "A", "rank": 16, "batch": 2}, cells) == ([], [3] * 8)
    assert compared({"strategy": "C"}, cells) == ([], [None] * 8) and compared(None, cells) == ([], [None] * 8)


# --- in the report -------------------------------------------------------------------------------------------------------


def quality(cell, seed):
    """B is better than A by 0.1 at rank 4, and by 0.2 at rank 16, which is worse by one."""
    better = {4: 0.1, 16: 0.2, 64: 0.3}[cell["rank"]] * (cell["strategy"] == "B")
    return (cell["rank"] == 16) + 1.0 - better + 0.01 * seed * (1 + 0.1 * seed * (cell["strategy"] == "B"))


def levels(**how):
    """Results of a study whose baseline is A, whatever the rank."""
    results = made(quality, **how)
    results.study.baseline.pop("rank")
    return results


def test_differences_are_paired_within_each_level_of_an_open_axis():
    results = levels()
    found = differences(results, results.primary)
    labels = [(results.cells[one.cell].label, results.cells[one.baseline].label) for one in found]
    assert labels == [("B, rank 4", "A, rank 4"), ("B, rank 16", "A, rank 16")]
    assert [round(one.mean, 2) for one in found] == [-0.1, -0.2]
    table = difference_table(results)
    assert table.title == "Differences to the baseline (A, of the same rank)"
    place = [column.name for column in table.columns].index("baseline")
    assert [row.cells[place].text for row in table.rows] == ["A, rank 4", "A, rank 16"]
    main = main_table(results)
    assert [row.kind for row in main.rows] == ["before", "baseline", "baseline", "", ""]
    assert "paired difference to the baseline of the same rank" in main.caption
    text = " ".join(summary(results))
    assert (
        "Its difference to its baseline (A, rank 4) is" in text
        and "2 cells compared with the baseline of the same rank" in text
    )


def test_one_baseline_alone_is_as_one_cell_s_level():
    """The same numbers as of a study that has this level only."""
    both, alone = levels(), levels(axes={"strategy": ["A", "B"], "rank": [4]})
    first, (only,) = differences(both, both.primary)[0], differences(alone, alone.primary)
    assert (first.mean, first.half_width, first.pairs) == (only.mean, only.half_width, only.pairs)


def sentences(results, folder) -> list[str]:
    """What the report's section on the baseline says; its summary says it as well."""
    report = report_of(results, "s", folder)
    (section,) = [section for section in report.sections if section.name == "differences"]
    assert set(section.text) <= set(report.summary)
    return list(section.text)


def test_a_baseline_that_is_none_of_the_report_s_cells_is_told(tmp_path):
    _, results = write_study(tmp_path, load_study(STUDIES / "vggt-eth3d.yaml", {"baseline": {"rank": 32}}))
    assert sentences(results, tmp_path) == [
        "The study's baseline (A, rank 32) is none of its cells, so that nothing is compared with it."
    ]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("oom (predicted)", "OOM (predicted)"),
        ("invalid", "invalid"),
        ("failed", "failed"),
        ("oom", "OOM"),
        ("not run", "not run"),
    ],
)
def test_a_baseline_that_reached_nothing_is_told(tmp_path, outcome, words):
    results = with_fates(tmp_path, {("A", 16): [outcome] * 3})
    assert sentences(results, tmp_path) == [
        f"The baseline reached no depth MAE, so that nothing is compared with it: A, rank 16 ({words})."
    ]


def test_of_several_baselines_the_one_that_reached_nothing_is_told(tmp_path):
    results = with_fates(tmp_path, {("A", 16): ["failed"] * 3})
    results.study.baseline.pop("rank")
    assert sentences(results, tmp_path) == [
        "Of 2 baselines 1 reached no depth MAE, so that nothing is compared with it: A, rank 16 (failed)."
    ]


def test_cells_without_a_baseline_of_their_values_are_told():
    """As a study.json that was changed may have it."""
    ranks = {"strategy": ["A", "B"], "rank": [4, 16, 64]}
    results = levels(axes=ranks, outcome=lambda cell, _: None if cell == {"strategy": "A", "rank": 64} else "completed")
    assert "No baseline is of the same rank as B, rank 64: compared with nothing." in summary(results)
    texts = {row.cells[0].text + row.cells[1].text: row.cells[-2].text for row in main_table(results).rows}
    assert texts["B64"] == "–" and texts["A4"] == texts["A16"] == "baseline"


def test_a_baseline_with_which_all_is_well_is_not_spoken_of(tmp_path):
    results = with_fates(tmp_path, {})
    assert sentences(results, tmp_path) == []


def test_a_card_that_there_is_not_is_an_error_when_the_study_is_read():
    with pytest.raises(UserError, match="hardware: rtx4900 is not a known card; did you mean rtx4090"):
        parsed(hardware="rtx4900")
