"""A study as it is given away, with all that tells of it: workflow, README, metadata, checksums."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ablation.archive.contents import STUDY, name_and_scale
from ablation.archive.crate import Told, add_workflow, write_crate
from ablation.archive.pack import checksums, write_checksums
from ablation.archive.stage import staged
from ablation.files import write_text

README = """\
# {name}, {scale}

A finished ablation study: `report.html` is its report, `runs.parquet` its runs, `runs/` what each of them left.
`ro-crate-metadata.json` says what every file is (RO-Crate, Workflow Run profile).

    sha256sum -c SHA256SUMS

tells whether all is as it was. In a checkout of the workflow (`workflow/` has its rules and pinned packages, each run's
`manifest.json` its commit),

    make restore ARCHIVE={name}-{scale}.tar.gz

checks the same, makes the report again and compares. Paths outside the project stand as `elsewhere/...`.
"""


@contextmanager
def described(folder: Path, told: Told) -> Iterator[tuple[Path, int]]:
    """The staged study of ``folder`` (:func:`staged`), described; and when it ended, in seconds since 1970."""
    with staged(folder) as target:
        add_workflow(target)
        name, scale = name_and_scale(target / STUDY)
        write_text(target / "README.md", README.format(name=name, scale=scale))
        sums = checksums(target, {})
        ended = write_crate(target, sums, told)
        write_checksums(target, checksums(target, sums))
        yield target, int(datetime.fromisoformat(ended).timestamp()) if ended else 0
