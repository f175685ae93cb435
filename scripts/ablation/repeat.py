"""A run done again beside the first one, and held against it number by number."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from ablation.errors import UserError
from ablation.formats import KEY
from ablation.resolved import load_run
from ablation.sweep import Run
from ablation.yamlfile import load_yaml

CLOCK = "seconds"  # the one column of a history that is another each time
FOLDER = "repeated"  # beside runs/


class Compared(NamedTuple):
    """One thing that both times left, and in what it differs: nothing where the two are equal bit by bit."""

    what: str
    difference: str


class Repetition:
    """The second time of a run that a study's folder holds. Inputs are found as the workflow places them."""

    def __init__(self, study: Path, run: str):
        self.study, self.results = study, study.parent.parent
        self.run = load_run(study, run)
        self.first, self.folder = study.parent / "runs" / run, study.parent / FOLDER / run
        self.base = study.parent / "base" / self.run.base / "metrics.json"
        _check(self.run, self.first, [self.base, *self.data, *self.weights.values()])

    @property
    def weights(self) -> dict[str, Path]:
        """The pretrained weights that the run reads: name -> path."""
        return {name: Path(path) for name, path in self.run.settings.weight_files().items()}

    @property
    def data(self) -> list[Path]:
        """The prepared data that the run reads."""
        return [self.results / "data" / part.id for part in self.run.settings.parts()]

    def commands(self) -> list[list[str]]:
        """Arguments of the programs that train and evaluate, as the workflow's rules call them."""
        compute, recorded = self.run.settings.compute, read(self.first / "training.json")
        job = ["--study", str(self.study), "--run", self.run.id, "--device", recorded.get("device", "auto")]
        job += ["--weights", *(f"{name}={path}" for name, path in self.weights.items()), "--data", *map(str, self.data)]
        training, metrics = self.folder / "training.json", self.folder / "metrics.json"
        train = ["train_run.py", *job, "--threads", str(compute.threads * self.run.axes["gpus"])]
        train += ["--cards", "config/hardware", "--folder", str(self.folder)]
        evaluate = ["evaluate_run.py", *job, "--threads", str(compute.threads)]
        evaluate += ["--training", str(training), "--base", str(self.base), "--output", str(metrics)]
        return [train, evaluate]


def _check(run: Run, first: Path, inputs: Sequence[Path]) -> None:
    """Raise :class:`UserError` where there is nothing to compare with, or an input is gone."""
    recorded = first / "run.yaml"
    if not recorded.is_file() or not (first / "metrics.json").is_file():
        raise UserError(f"{first}: this run has no result yet, so there is nothing to repeat")
    if {**load_yaml(recorded), KEY: None} != {KEY: None, **json.loads(json.dumps(run.training_view))}:
        raise UserError(f"{recorded}: the study was changed since this run was trained; run the workflow again first")
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: is gone, and the run read it; the workflow makes it again")


def compare(first: Path, second: Path) -> list[Compared]:
    """What the folders of the two hold: outcome, history, what was saved, metrics. Whatever takes time may differ."""
    one, two = read(first / "metrics.json"), read(second / "metrics.json")
    found = [
        Compared("outcome", _unequal(one["outcome"], two["outcome"])),
        Compared("losses", _rows_differ(_history(first), _history(second))),
    ]
    if one.get("saved"):
        found.append(Compared("trained weights", _files_differ(first / one["saved"], second / one["saved"])))
    names = [name for name in ("metrics", "items") if one.get(name) or two.get(name)]
    return found + [Compared(name, _first_unequal(one.get(name), two.get(name), name)) for name in names]


def circumstances(first: Path, second: Path) -> list[str]:
    """What was not the same around the two runs, and may be why they differ."""
    one, two = (_flat(read(folder / "manifest.json")) for folder in (first, second))
    ignored = ("written", "host", "slurm_job")
    return [
        f"{name}: {one.get(name)} then, {two.get(name)} now"
        for name in dict.fromkeys([*one, *two])
        if name not in ignored and one.get(name) != two.get(name)
    ]


def read(path: Path) -> dict[str, Any]:
    """A JSON file of a run."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{name: text for name, text in row.items() if name != CLOCK} for row in csv.DictReader(file)]


def _rows_differ(one: list[dict[str, str]], two: list[dict[str, str]]) -> str:
    """The first step that differs, in what and by how much. Numbers are compared as printed, which is exact."""
    for number, (a, b) in enumerate(zip_longest(one, two), start=1):
        if a is None or b is None:
            return f"{len(one)} steps then, {len(two)} now"
        if a != b:
            name = next(name for name in a if a[name] != b.get(name))
            return f"first at step {a.get('step', number)}, {name}: {_unequal(a[name], b.get(name))}"
    return ""


def _files_differ(one: Path, two: Path) -> str:
    """The names of files that are not the same in both, bytes and all."""
    names = sorted({path.relative_to(root) for root in (one, two) for path in root.rglob("*") if path.is_file()}) or [Path()]
    unequal = [str(name) for name in names if not _same(one / name, two / name)]
    return f"{', '.join(unequal)} not the same bytes" if unequal else ""


def _same(one: Path, two: Path) -> bool:
    if not (one.is_file() and two.is_file() and one.stat().st_size == two.stat().st_size):
        return False
    with one.open("rb") as a, two.open("rb") as b:
        blocks = zip(*(iter(_reader(file), b"") for file in (a, b)), strict=True)
        return all(x == y for x, y in blocks)


def _reader(file: Any) -> Callable[[], bytes]:
    return lambda: file.read(1 << 20)


def _first_unequal(one: Any, two: Any, name: str) -> str:
    a, b = _flat({name: one}), _flat({name: two})
    different = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    if not different:
        return ""
    first = different[0]
    return f"{len(different)} of {len(a)}, first {first}: {_unequal(a.get(first), b.get(first))}"


def _unequal(one: Any, two: Any) -> str:
    """Nothing for equal values, else both, and for numbers their relative difference."""
    if one == two:
        return ""
    try:
        a, b = float(one), float(two)
        apart = f" ({abs(a - b) / max(abs(a), abs(b)):.1e} relative)" if math.isfinite(a - b) else ""
    except (TypeError, ValueError):
        apart = ""
    return f"{one} then, {two} now{apart}"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary with dotted names."""
    if not isinstance(value, (dict, list)):
        return {prefix: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        name: leaf for key, inner in pairs for name, leaf in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()
    }
