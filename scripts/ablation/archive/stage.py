"""A copy of a finished study without the paths of this machine, its report made again from that copy."""

import json
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from ablation.archive.contents import REPORT, RUNS_TABLE, STUDY, contents, name_and_scale, texts
from ablation.errors import UserError
from ablation.manifest import settings_hash
from ablation.private import Private
from ablation.report.results import read_runs
from ablation.report.writing import write_report
from ablation.yamlfile import dump_yaml, load_yaml

STRUCTURED = {
    ".json": (lambda path: json.loads(path.read_text(encoding="utf-8")), lambda value: json.dumps(value, indent=1) + "\n"),
    ".yaml": (load_yaml, dump_yaml),
}  # whose texts may be escaped or folded: how to read and to write them
PLAIN = {".csv", ".md", ".txt", ".tex", ".svg"}  # read as text, whatever they say
MADE_AGAIN = ("tables/", "figures/")  # byte for byte, or the report is not of these runs


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder with what is given away of the study in ``folder``; what needs no change is a link to it.

    Paths outside the project are replaced (:class:`Private`). The report is made again, so that it links to what is there, with
    the working directory at a place where the study is called ``results/<scale>/<name>``. Raises :class:`UserError` where that
    report is not the study's own.
    """
    names, (name, scale) = contents(folder), name_and_scale(folder / STUDY)
    private = Private(json.loads((folder / STUDY).read_text(encoding="utf-8")))
    with TemporaryDirectory() as place:
        inside = Path("results", scale, name)
        target = Path(place) / inside
        for file in names:
            if not file.startswith(REPORT):
                _give(folder / file, target / file, private)
        with chdir(place):
            write_report(inside / STUDY, inside, inside)
        _check_report(folder, target, names, private)
        yield target


def place_of(results: Path, study: Path) -> Path:
    """Where the workflow has a study, by its ``study.json``."""
    name, scale = name_and_scale(study)
    return results / scale / name


def _give(source: Path, target: Path, private: Private) -> None:
    """A link to ``source``, or its content without what is private."""
    target.parent.mkdir(parents=True, exist_ok=True)
    changed = _changed(source, private)
    if changed is None:
        target.symlink_to(source.resolve())
    else:
        target.write_bytes(changed)


def _changed(source: Path, private: Private) -> bytes | None:
    """The content of a file without what is private; None where it holds nothing of it."""
    if source.name == RUNS_TABLE:
        return _changed_table(read_runs(source), private)
    if source.suffix in PLAIN:
        before = source.read_text(encoding="utf-8")
        return text.encode() if (text := private.text(before)) != before else None
    if source.suffix not in STRUCTURED:
        return None
    read, write = STRUCTURED[source.suffix]
    before = read(source)
    after = private.value(before)
    if source.name == "manifest.json" and "settings_sha256" in before:
        after["settings_sha256"] = _settings_hash(before["settings_sha256"], source.with_name("run.yaml"), private)
    return write(after).encode() if after != before else None


def _settings_hash(known: str, run: Path, private: Private) -> str:
    """The hash of ``run.yaml`` as it is given away; one that is not its hash now stays wrong."""
    view = load_yaml(run)
    return settings_hash(private.value(view)) if known == settings_hash(view) else known


def _changed_table(table: pd.DataFrame, private: Private) -> bytes | None:
    found = {name: table[name].map(lambda value: private.text(value) if isinstance(value, str) else value)
             for name in texts(table)}  # fmt: skip
    return (
        None
        if all(column.equals(table[name]) for name, column in found.items())
        else table.assign(**found).to_parquet(index=False)
    )


def _check_report(folder: Path, target: Path, names: list[str], private: Private) -> None:
    """Raise :class:`UserError` where a table or a figure is not the one that the collected runs give."""
    ours = {name for name in names if name.startswith(MADE_AGAIN)}
    made = {file.relative_to(target).as_posix() for part in MADE_AGAIN for file in (target / part).rglob("*") if file.is_file()}
    for name in sorted(ours | made):
        if name not in ours or name not in made or _known(folder / name, private) != (target / name).read_bytes():
            raise UserError(
                f"{folder / name}: is not what {RUNS_TABLE} gives; make the report again:"
                f" python scripts/write_report.py --study {folder / STUDY} --folder {folder}"
            )


def _known(file: Path, private: Private) -> bytes:
    content = file.read_bytes()
    return private.text(content.decode()).encode() if file.suffix in PLAIN else content
