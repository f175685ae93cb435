"""A table is the same in every form: CSV keeps all digits, and no text can break out of Markdown or LaTeX."""

import csv
import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ablation.report.formats.csv import as_csv
from ablation.report.formats.files import write_table
from ablation.report.formats.latex import as_latex
from ablation.report.formats.latex_text import latex
from ablation.report.formats.markdown import as_markdown, escaped
from ablation.report.table import Cell, Column, Row, Table

COLUMNS = [
    Column("strategy", "strategy", numeric=False),
    Column("rank", "rank"),
    Column("mae", "depth MAE", "m", "lower"),
    Column("memory", "memory", "GiB", "lower"),
]
ROWS = [
    Row([Cell("pretrained"), Cell("–"), Cell("1.200", 1.2), Cell("–")], "before"),
    Row(
        [Cell("A_1"), Cell("4", 4.0), Cell("0.505 ± 0.064", 0.505123456789, 0.0635, best=True), Cell("11.6", 11.6)], "baseline"
    ),
    Row([Cell("A_1"), Cell("16", 16.0), Cell("\N{MINUS SIGN}0.31", -0.31), Cell("9.25", 9.25)]),
    Row([Cell("B"), Cell("16", 16.0), Cell("OOM"), Cell("OOM")]),
]
TABLE = Table("main", "Results & more", "All in $ and 100 %.", COLUMNS, ROWS)
ANY = st.text(max_size=40)


def table_of(texts):
    """A table of two text columns."""
    columns = [Column("one", "one", numeric=False), Column("two", "two", numeric=False)]
    return Table("any", "any", "", columns, [Row([Cell(a), Cell(b)]) for a, b in texts])


# --- CSV ---------------------------------------------------------------------------------------------------------------


def test_csv_has_numbers_intervals_and_the_words_in_place_of_numbers():
    rows = list(csv.reader(io.StringIO(as_csv(TABLE))))
    assert rows == [
        ["strategy", "rank", "mae [m]", "mae ± [m]", "mae text", "memory [GiB]", "memory text"],
        ["pretrained", "", "1.2", "", "", "", ""],
        ["A_1", "4", "0.505123456789", "0.0635", "", "11.6", ""],
        ["A_1", "16", "-0.31", "", "", "9.25", ""],
        ["B", "16", "", "", "OOM", "", "OOM"],
    ]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_csv_keeps_every_digit(value):
    table = Table("t", "t", "", [Column("x", "x")], [Row([Cell("about", value)])])
    assert float(as_csv(table).splitlines()[1]) == value


@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=5))
def test_csv_keeps_any_text(texts):
    rows = list(csv.reader(io.StringIO(as_csv(table_of(texts)), newline="")))[1:]
    assert rows == [["" if text == "–" else text.replace("\r", " ") for text in pair] for pair in texts]


# --- Markdown ----------------------------------------------------------------------------------------------------------


def rendered(text):
    """The cells of all rows, and the plain text, as GitHub's parser has them."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    cells = [tokens[i + 1] for i, token in enumerate(tokens) if token.type in ("th_open", "td_open")]
    return tokens, ["".join(child.content for child in cell.children or []) for cell in cells], cells


def test_markdown_is_a_table_with_the_best_in_bold():
    tokens, cells, found = rendered(as_markdown(TABLE))
    assert cells[:4] == [column.head for column in COLUMNS] and len(cells) == 20
    assert cells[4:] == [cell.text for row in ROWS for cell in row.cells]
    strong = [
        text for text, cell in zip(cells, found, strict=True) if any(c.type == "strong_open" for c in cell.children or [])
    ]
    assert strong == ["0.505 ± 0.064"]
    assert sum(token.type == "table_open" for token in tokens) == 1 and "### Results \\& more" in as_markdown(TABLE)


@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=4))
def test_no_text_breaks_out_of_a_markdown_table(texts):
    tokens, cells, found = rendered(as_markdown(table_of(texts)))
    assert len(cells) == 2 + 2 * len(texts)
    kinds = {child.type for cell in found for child in cell.children or []}
    assert kinds <= {"text", "text_special"} and not any(token.type.startswith("html") for token in tokens)
    for text, cell in zip((text for pair in texts for text in pair), cells[2:], strict=True):
        assert "".join(cell.split()) == "".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "", text).split())


def test_markdown_of_one_line():
    assert escaped("a|b\n<b> *c* $d$ `e`") == "a\\|b \\<b\\> \\*c\\* \\$d\\$ \\`e\\`"


# --- LaTeX: that it compiles is in browser/test_latex.py ---------------------------------------------------------------


def test_latex_is_booktabs_with_rules_where_a_reader_needs_them():
    text = as_latex(TABLE)
    assert [line.strip() for line in text.splitlines() if "rule" in line or "addlinespace" in line] == [
        "\\toprule", "\\midrule", "\\midrule", "\\addlinespace", "\\bottomrule",
    ]  # fmt: skip
    assert "\\caption{\\textbf{Results \\& more.} All in \\$ and 100 \\%.}" in text and "\\label{tab:main}" in text
    assert "depth MAE" in text and "$\\downarrow$" in text and "A\\_1" in text and "{--}" in text
    assert text.count("\\textbf{0.505 $\\pm$ 0.064}") == 1


def test_decimal_points_stand_below_each_other():
    """All numbers of a column are padded by invisible characters to one and the same shape."""
    lines = [line for line in as_latex(TABLE).splitlines() if line.strip().startswith(("A", "pre"))]
    cells = [line.split(" & ")[2].replace("$-$", "-").replace("$\\pm$", "±").replace("~", " ") for line in lines]
    seen = [re.sub(r"\\(?:hphantom|textbf)\{([^{}]*)\}", r"\1", cell) for cell in cells]
    assert "\\hphantom" in cells[0] and "\\hphantom" in cells[1]
    assert [text.index(".") for text in seen] == [2, 2, 2] and len({len(text) for text in seen}) == 1, seen


def test_a_group_s_heading_spans_the_table():
    rows = [Row([Cell("all of LoRA")], "group"), *ROWS[1:]]
    text = as_latex(Table("t", "t", "", COLUMNS, rows))
    assert "\\multicolumn{4}{@{}l@{}}{\\emph{all of LoRA}} \\tabularnewline" in text
    assert "| **all of LoRA** |  |  |  |" in as_markdown(Table("t", "t", "", COLUMNS, rows))


def test_a_table_longer_than_a_page_goes_on_in_the_next():
    rows = [Row([Cell(f"run {i}"), Cell("4", 4.0), Cell("0.1", 0.1), Cell("1.0", 1.0)]) for i in range(100)]
    text = as_latex(Table("runs", "Runs", "All.", COLUMNS, rows))
    assert text.count("\\begin{table}") == 3 and text.count("Continued.") == 2 and text.count("\\clearpage") == 2
    assert text.count("\\tabularnewline") == 100 + 3 and "\\label{tab:runs-2}" in text


@given(st.text())
def test_latex_is_ascii_and_balanced_whatever_the_text(text):
    found = latex(text)
    assert found.isascii() and "\n" not in found
    bare = re.sub(r"\\[{}$&#%_^~\"'`=.]", "", found.replace("\\\\", ""))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[&#%_]", bare) and "--" not in found.replace("{--}", "").replace("{---}", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100 % & $5 #1 a_b {c} ~ ^ \\", r"100 \% \& \$5 \#1 a\_b \{c\} \textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("0.5 ± 0.1 × 3 – ↓ ↑ ✓ ✗ µ", r"0.5 $\pm$ 0.1 $\times$ 3 {--} $\downarrow$ $\uparrow$ $\surd$ $\times$ $\mu$"),
        ("Fréchet Ångström Łódź ß", r"Fr\'{e}chet \r{A}ngstr\"{o}m \L{}\'{o}d\'{z} \ss{}"),
        ("δ < 1.25, AUC@30°", r"$\delta$ $<$ 1.25, AUC@30$^{\circ}$"),
        ("--config", "-{}-config"),
        ("中", r"{\ttfamily U+4E2D}"),
        ("a\nb\tc", "a b c"),
    ],
)  # fmt: skip
def test_characters_become_commands(text, expected):
    assert latex(text) == expected


def test_a_table_is_written_in_three_forms(tmp_path):
    write_table(TABLE, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.csv", "main.md", "main.tex"]
    assert (tmp_path / "main.csv").read_text() == as_csv(TABLE) and (tmp_path / "main.tex").read_text() == as_latex(TABLE)
    assert (tmp_path / "main.md").read_text() == as_markdown(TABLE)


def test_what_is_not_a_number_is_no_number_in_csv():
    table = Table("t", "t", "", [Column("x", "x")], [Row([Cell("–")]), Row([Cell("baseline")]), Row([Cell("0", 0.0)])])
    assert as_csv(table).splitlines() == ["x,x text", ",", ",baseline", "0,"]
    assert math.isclose(float(as_csv(table).splitlines()[3].rstrip(",")), 0.0)
