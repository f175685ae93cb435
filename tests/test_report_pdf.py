"""The report on paper: all that is said is there, what is data stays data, and too much of it is cut."""

import json

import typst
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure as Drawing
from PIL import Image
from printed import pages, spaceless

from ablation.report.content import Panels, Report, Section
from ablation.report.figure import Figure
from ablation.report.pdf.choice import LINES, MOST_TEXT, chosen, cut
from ablation.report.pdf.pdf import report_pdf, typst_source
from ablation.report.table import Cell, Column, Row, Table, texts

HOSTILE = '#panic("x") *a* _b_ $c$ `d` @ref <label> \\ // /* "e" #image("/etc/passwd") = ~ ± ↓ ↑ × ✓ ✗ – δ²'


def drawn(width=3.3):
    drawing = Drawing(figsize=(width, 2))
    drawing.add_subplot().plot([1, 2], label="x")
    return drawing


def table(rows, columns=2, **more):
    heads = [Column("way", "way", numeric=False), *(Column(f"m{i}", f"error {i}", "m", "lower") for i in range(columns - 1))]
    return Table("main", "Quality", "Means.", heads, rows, **more)


def numbers(*values, kind="", name="A"):
    return Row([Cell(name), *(Cell(f"{v:.3f} ± 0.010", v, 0.01) for v in values)], kind)


def report(*blocks, title="A title", summary=("It was compared.",), text=()):
    return Report("vggt", title, "demo", summary, [Section("quality", "Quality", text, blocks)], [], "")


def test_all_that_is_said_can_be_read_and_found(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    rows = [numbers(1.2, kind="before", name="pretrained"), numbers(0.5, kind="baseline"), numbers(0.4, name="B ✓ ×")]
    panels = Panels("p", "Panels", "By item.", ["before", "after"], [("yard", [tmp_path / "a.png", None])])
    figure = Figure("f", "Loss", "By step.", "It falls.", drawn)
    pdf = report_pdf(report(table(rows), figure, panels, text=["A sentence."]))
    text = " ".join(pages(pdf))
    for said in (
        "A title",
        "It was compared.",
        "A sentence.",
        "0.500 ± 0.010",
        "B ✓ ×",
        "error 0, m ↓",
        "Means.",
        "By step.",
        "yard",
    ):
        assert spaceless(said) in text, said
    assert all(name in text for name in ("Table1", "Figure1", "Figure2"))
    assert b"/Alt(It falls.)" in pdf


def test_same_report_same_bytes():
    content = report(table([numbers(0.5)]), Figure("f", "Loss", "By step.", "It falls.", drawn))
    assert report_pdf(content) == report_pdf(content)
    assert b"CreationDate" not in report_pdf(content)


def test_data_is_never_evaluated():
    text = " ".join(pages(report_pdf(report(table([Row(texts(HOSTILE, 1))]), title=HOSTILE, summary=[HOSTILE]))))
    for said in ('#panic("x") *a* _b_ $c$', "<label>", '#image("/etc/passwd")', "± ↓ ↑ × ✓ ✗ – δ²"):
        assert text.count(spaceless(said)) >= 2, said


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=60), st.text(max_size=400))
def test_any_text_can_be_set(short, long):
    report_pdf(
        report(table([Row(texts(long, short)), Row([Cell(short)] * 2, "group")]), title=short, summary=[long], text=[long])
    )


def test_what_a_column_holds_stands_beside_its_like(tmp_path):
    narrow, wide = table([numbers(0.5)]), table([numbers(*range(7))], columns=8)
    figures = [Figure("f", "F", "", "", lambda: drawn(3.3)), Figure("g", "G", "", "", lambda: drawn(7))]
    assert _beside(tmp_path / "a", narrow, figures[0]) and _beside(tmp_path / "b", narrow, wide, narrow)
    assert not _beside(tmp_path / "c", narrow, wide) and not _beside(tmp_path / "d", figures[1], narrow)


def _beside(folder, *blocks):
    folder.mkdir()
    source = typst_source(report(*blocks), folder)
    return json.loads(typst.query(source, "<beside>", root=folder, ignore_system_fonts=True))


def claim(verdict, reason, kind):
    return Row(texts(verdict, "A needs 12 GB", reason), kind)


def test_of_claims_the_compared_ones_and_why_the_others_are_not():
    heads = [Column(name, name, numeric=False) for name in ("verdict", "says", "reason")]
    rows = [claim("✗ refuted", "half of it", "bad"), *[claim("– not comparable", "no data", "before")] * 3]
    shown, note = chosen(Table("claims", "Claims", "", heads, rows))
    assert shown.rows == rows[:1] and note == "Of 4 claims 3 are not comparable: 3 as no data."
    text = " ".join(pages(report_pdf(report(Table("claims", "Claims", "", heads, rows[1:])))))
    assert spaceless("Of 3 claims 3 are not comparable") in text and "Table1" not in text


def test_of_differences_those_of_the_first_metric():
    heads = [Column(name, name, numeric=False) for name in ("metric", "cell", "difference")]
    shown, note = chosen(Table("differences", "D", "", heads, [Row(texts(m, "B", d)) for m, d in (("MAE", 1), ("RMSE", 2))]))
    assert shown.rows == [Row(texts("B", 1))] and note.startswith("Of MAE. The other metrics")


def test_a_long_table_is_cut_to_its_best_rows_and_says_so():
    rows = [
        numbers(9.0, kind="before"),
        Row([Cell("bad ones")], "group"),
        *(numbers(5 - i / 100, name=f"r{i}") for i in range(99)),
    ]
    rows.insert(50, numbers(8.0, kind="baseline"))
    short, note = cut(table(rows))
    names = [row.cells[0].text for row in short.rows if row.kind == ""]
    assert names == [f"r{i}" for i in range(99 - len(names), 99)] and len(names) == LINES - 2
    assert [row.kind for row in short.rows][:2] == ["before", "group"] and "baseline" in [row.kind for row in short.rows]
    assert note == f"The {LINES} rows with the best error 0 of 101; all are in tables/main.csv."
    assert len(pages(report_pdf(report(table(rows))))) == 1


def test_a_heading_whose_rows_are_gone_is_gone():
    rows = [Row([Cell("first")], "group"), numbers(1.0), Row([Cell("second")], "group"), numbers(2.0)]
    assert [row.cells[0].text for row in cut(table(rows), 1)[0].rows] == ["first", "A"]


def test_entries_of_many_lines_take_the_place_of_rows():
    long = Table("long", "Long", "", [Column("says", "says", numeric=False)], [Row(texts("word " * 100)) for _ in range(40)])
    short, note = cut(long)
    assert len(short.rows) == LINES // (MOST_TEXT // 40) and note.startswith("The first 5 rows of 40")
    assert len(pages(report_pdf(report(long)))) == 1


def test_runs_are_for_the_page():
    runs = Table("runs", "Runs", "", [Column("run", "run", numeric=False)], [Row(texts("A-r4"))])
    assert "A-r4" not in " ".join(pages(report_pdf(report(runs, text=["Here."]))))


def test_letters_that_typst_has_not_do_not_stop_it():
    assert report_pdf(report(table([numbers(0.5, name="日本 😀")]))).startswith(b"%PDF")
