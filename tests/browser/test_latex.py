"""The LaTeX tables compile in a bare document with booktabs and nothing else, whatever their texts, and fit its pages."""

import subprocess

import pytest
from debian import need
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablation.report.formats.latex import as_latex
from ablation.report.table import Cell, Column, Row, Table

pytestmark = pytest.mark.page
PREAMBLE = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
TEXTS = st.lists(st.text(max_size=60), min_size=30, max_size=60)


@pytest.fixture(scope="session", autouse=True)
def pdflatex():
    need(pdflatex="texlive-latex-recommended")  # which has booktabs


def log_of(folder, tables):
    """What pdflatex says of a bare document with the tables; fails where it does not compile."""
    (folder / "all.tex").write_text(PREAMBLE + "\n".join(map(as_latex, tables)) + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0 and (folder / "all.pdf").is_file(), done.stdout[-3000:]
    return done.stdout


def numbers(columns, rows):
    """A table of numbers with intervals, as wide as asked for."""
    heads = [Column(f"m{i}", f"a metric of number {i}", "GiB", "lower") for i in range(columns)]
    cells = [Cell("0.505 ± 0.064", 0.505, 0.064, best=i % 3 == 0) for i in range(columns)]
    return Table(f"numbers-{columns}", "Numbers", "With their intervals.", heads, [Row(cells)] * rows)


@given(TEXTS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_compiles(tmp_path, texts):
    """As title, caption, head and cell; bold or in a column of long lines too."""
    columns = [Column("strategy", texts[0], numeric=False), Column("b", texts[1]), Column("c", "c", texts[2], numeric=False)]
    rows = [Row([Cell(a), Cell(b, 1.0, best=True), Cell(a + b + a)]) for a, b in zip(texts[::2], texts[1::2], strict=False)]
    group = Row([Cell(texts[3]), Cell(""), Cell("")], "group")
    log_of(tmp_path, [Table("any", texts[4], texts[5], columns, [group, *rows])])


@pytest.mark.parametrize(
    "characters",
    [
        "%&$#_{}~^\\[]*<>|\"'`-!?,;:=@/",
        "±–↓↑×✓✗µ−·°²≤≥∞√…†§",
        "αβγδεζηθικλμνξπρσςτυφχψωΓΔΘΛΞΠΣΥΦΨΩ",
        "éèêëãñçčůőåāăżḍßæÆøØœŒłŁı“”‘’«»¡¿",
        "中文\u202e\x00\x1b🙂\ufeff\u200b",
    ],
)
def test_each_character_compiles(tmp_path, characters):
    row = [Row([Cell(f"*{c}{c} {c}"), Cell(f"[{c}]")]) for c in characters]
    columns = [Column("strategy", characters, numeric=False), Column("two", "two", numeric=False)]
    log = log_of(tmp_path, [Table("characters", characters, characters, columns, row)])
    assert "Missing character" not in log and "undefined" not in log


def test_tables_that_fit_a_line_do_not_stick_out(tmp_path):
    long = "settings.of.a_long_name: {with: values, and_so_on: " + "x" * 50 + "} " + "words that go on " * 10
    texts = Table(
        "long", "Long", "", [Column(n, n, numeric=False) for n in "abc"], [Row([Cell("short"), Cell(long), Cell(long)])] * 4
    )
    log = log_of(tmp_path, [*(numbers(columns, 5) for columns in (1, 3, 5, 9, 14)), texts])
    assert "Overfull" not in log and "LaTeX Warning: Float too large" not in log


def test_a_thousand_runs_compile(tmp_path):
    columns = [Column("run", "run", numeric=False), *numbers(3, 1).columns]
    rows = [Row([Cell(f"A-r16-b2x1-fp32-s{i}-83e22a65"), *numbers(3, 1).rows[0].cells]) for i in range(1000)]
    log = log_of(tmp_path, [Table("runs", "Runs", "All.", columns, rows)])
    assert "Overfull" not in log and "Float too large" not in log
