"""Reports made by hand, with all that a page must cope with: what its tests in a browser look at."""

from pathlib import Path

from matplotlib.figure import Figure as Drawing
from PIL import Image

from ablation.report.content import Panels, Report, RunDetail, Section
from ablation.report.figure import Figure
from ablation.report.table import NONE, Cell, Column, Row, Table, texts

HOSTILE = '</script><img src=x onerror=alert(1)> & "co"'
STRATEGIES = ["A", "B", "C"]


def small_report(folder: Path) -> Report:
    """Nine runs in three cells, one of them without result; their pictures lie in ``folder``."""
    runs = [_run(STRATEGIES[number // 3], number % 3, number) for number in range(9)]
    runs[8] = RunDetail(runs[8].id, "OOM", runs[8].axes, {}, f"out of memory {HOSTILE}", {}, "")
    for run in runs[:8]:
        for path in run.pictures:
            _picture(folder / path)
    items = [(name, [folder / runs[0].pictures[0], None]) for name in ("hall", "yard")]
    sections = [
        Section("results", "Results", ["One sentence."], [_main(runs), _figure("memory"), _figure("loss"), _grouped()]),
        Section("items", "Held-out items", [], [Panels("views", "Views", "Before and after.", ["before", "A"], items)]),
        Section("runs", "Runs", [], [_all_runs(runs)]),
    ]
    return Report(
        "small", f"A study {HOSTILE}", "demo", ["Nine runs.", f"B is best {HOSTILE}."], sections, runs, "a: 1\nb: 2\n"
    )


def large_report(count: int = 1000) -> Report:
    """A page of ``count`` runs with curves, in as many rows."""
    runs = [_run(STRATEGIES[number % 3], number, number, pictures=False) for number in range(count)]
    return Report(
        "large", "A large study", "demo", ["Many runs."], [Section("runs", "Runs", [], [_all_runs(runs)])], runs, "a: 1\n"
    )


def loss(number: int) -> float:
    """A value for each run, in no order: a run's number times 7, modulo 1009, over 1000."""
    return number * 7 % 1009 / 1000


def _run(strategy: str, seed: int, number: int, pictures: bool = True) -> RunDetail:
    name = f"{strategy}-r16-b2x1-fp32-s{seed}-{number:08x}"
    return RunDetail(
        id=name,
        outcome="completed",
        axes={"strategy": strategy, "rank": "16", "seed": str(seed)},
        numbers={"depth MAE": f"{loss(number):.3f} m", "memory, peak allocated": "1.250 GiB"},
        remark="",
        origin={"machine": "node<1>", "code": "0123456789ab"},
        command=f"snakemake verify --profile local --config reference=results/demo/small runs={name}",
        curve={"step": list(range(1, 121)), "loss": [1 / step for step in range(1, 120)] + [float("nan")]},
        links={"settings": f"runs/{name}/run.yaml", "log": f"runs/{name}/trainer.log"},
        pictures=[f"runs/{name}/pictures/view #1.png"] if pictures else [],
    )


def _main(runs: list[RunDetail]) -> Table:
    columns = [
        Column("strategy", "strategy", numeric=False),
        Column("mae", "depth MAE", "m", "lower"),
        Column("score", "score", "", "higher"),
    ]
    rows = [Row(texts("pretrained", "1.200", NONE), "before")]
    for index, (strategy, mae, score) in enumerate(zip(STRATEGIES, (0.5, 0.25, 0.75), (10.0, 9.0, 100.0), strict=True)):
        ids = [run.id for run in runs[3 * index : 3 * index + 3]]
        cells = [
            Cell(strategy),
            Cell(f"{mae:.3f} ± 0.010", mae, 0.01, mae == 0.25, ids),
            Cell(f"{score:.0f}", score, runs=ids[:1]),
        ]
        rows.append(Row(cells, "baseline" if strategy == "A" else ""))
    rows.append(Row(texts("D", "OOM", NONE), "bad"))
    return Table("main", "Main table", f"Means over seeds. {HOSTILE}", columns, rows)


def _grouped() -> Table:
    columns = [Column("technique", "technique", numeric=False), Column("memory", "memory", "GiB")]
    rows = []
    for head, values in (("on one GPU", (3, 1, 2)), ("on two GPUs", (6, 4, 5))):
        rows.append(Row(texts(head, ""), "group"))
        rows += [Row([Cell(f"way {value}"), Cell(f"{value}.0", float(value))]) for value in values]
    return Table("ladder", "Ladder", "Each technique added in turn.", columns, rows)


def _all_runs(runs: list[RunDetail]) -> Table:
    columns = [
        Column("run", "run", numeric=False),
        Column("strategy", "strategy", numeric=False),
        Column("outcome", "outcome", numeric=False),
        Column("mae", "depth MAE", "m", "lower"),
        Column("remarks", "remarks", numeric=False),
    ]
    rows = []
    for number, run in enumerate(runs):
        done = run.outcome == "completed"
        value = Cell(f"{loss(number):.3f}", loss(number), runs=[run.id]) if done else Cell(NONE)
        cells = [Cell(run.id, runs=[run.id]), *texts(run.axes["strategy"], run.outcome), value, *texts(run.remark)]
        rows.append(Row(cells, "" if done else "bad"))
    return Table("runs", "Runs", "All runs, in the order of the plan.", columns, rows)


def _figure(name: str) -> Figure:
    def draw() -> Drawing:
        drawing = Drawing(figsize=(4, 3))
        drawing.subplots().plot([1, 2, 3], label=HOSTILE)
        return drawing

    return Figure(name, f"Figure of {name}", "A line.", f"A line that rises from 1 to 3, {name}", draw)


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((900, 300)).save(path)
