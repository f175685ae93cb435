"""Write docs/speed.md: one table of all that benchmarks/speed holds."""

from pathlib import Path

from recording import Row, read_all

from ablation.files import write_text

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/speed.md"
HEAD = """# What is fast, and by how much

<!-- Generated from benchmarks/speed by `make speed-table`; do not edit. -->

Each row compares two ways to the same result, measured in turns in one run of a benchmark on the machine named below; the last
column names the test that shows that losses, gradients or metrics stay equal. Memory is predicted, at the released sizes.
`make benchmarks` measures all of them again on your machine.

| What | Before | After | Ratio | Benchmark | The results are equal |
| --- | ---: | ---: | ---: | --- | --- |
"""


def page(records: dict[str, dict]) -> str:
    """The whole page: the table, then on what each benchmark ran."""
    lines = [_line(name, row) for name, record in records.items() for row in record["rows"]]
    places = [_place(name, record) for name, record in records.items()]
    return HEAD + "".join(lines) + "\nMeasured on:\n\n" + "".join(places)


def _line(name: str, row: Row) -> str:
    sizes = [f"{value:.3g} {row.unit}" for value in (row.before, row.after)]
    return f"| {row.what} | {' | '.join(sizes)} | {row.ratio:.2f} | {name} | `{row.test}` |\n"


def _place(name: str, record: dict) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return f"- `benchmarks/{name}.py`: {record['cpu']}, {record['cores']} cores, {versions}, {record['date']}\n"


if __name__ == "__main__":
    write_text(PAGE, page(read_all()))
