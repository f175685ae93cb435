"""An archive of a study, which may be anybody's, back as a folder: checked before anything of it is used."""

import gzip
import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from ablation.archive.contents import REPORT, RUNS_TABLE, STUDY, name_and_scale, runs
from ablation.archive.pack import SUMS, Said, files_of
from ablation.errors import UserError, is_control
from ablation.files import NO_SPACE, digest
from ablation.outside import MIB, read_bytes
from ablation.report.writing import write_report

BLOCK = MIB
DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


@contextmanager
def unpacked(archive: Path, beside: Path, said: Said = lambda done: None) -> Iterator[Path]:
    """A temporary folder in ``beside`` with what ``archive`` holds; there the study is ``results/<scale>/<name>``.

    Raises :class:`UserError` that names the file where one is not what the checksums say, is missing, or has no checksum, and
    where a name would leave the folder, is a link, or stands twice.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=beside, prefix=".restore-") as place:
        loose = Path(place) / "archive"
        _extract(archive, loose, said)
        for name in (STUDY, RUNS_TABLE):
            if not (loose / name).is_file():
                raise UserError(f"{archive}: holds no study (it has no {name})")
        study, scale = name_and_scale(loose / STUDY)
        runs(loose)  # their names become paths
        target = Path(place, "results", scale, study)
        target.parent.mkdir(parents=True)
        yield loose.rename(target)


def rebuilt(folder: Path) -> list[str]:
    """Make the report of an unpacked study again, in its folder ``rebuilt``; names of its files that come out otherwise.

    Where all are the same, the second report is removed.
    """
    place, inside = folder.parents[2], Path(*folder.parts[-3:])
    again = inside / "rebuilt"
    with chdir(place):
        try:
            write_report(inside / STUDY, inside, again)
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # it may be anybody's
            raise UserError(f"{inside}: its report cannot be made ({type(error).__name__}: {error})") from None
        names = {
            path.relative_to(root).as_posix() for root in (inside, again) for name in REPORT for path in _below(root / name)
        }
        different = sorted(name for name in names if digest(inside / name) != digest(again / name))
        if not different:
            shutil.rmtree(again)
    return different


def put(folder: Path, target: Path) -> None:
    """Move an unpacked study to ``target``. Raises :class:`UserError` where something else is there."""
    if target.exists():
        for name, path in files_of(folder).items():
            if digest(target / name) != digest(path):
                raise UserError(f"{target}: is there already, with another {name}; move it away, then restore again")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)


def _extract(archive: Path, target: Path, said: Said) -> None:
    """The files of the archive in the new folder ``target``, each checked as it is written."""
    if not archive.is_file():
        raise UserError(f"{archive}: there is no such archive")
    target.mkdir()
    name, sums = "", None
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = _inside(archive, member)
                if sums is None and name != SUMS:
                    raise UserError(f"{archive}: is no archive of a study (it does not begin with {SUMS})")
                if (target / name).exists() or not (sums is None or name in sums):
                    raise UserError(f"{archive}: {name} stands in it twice, or is not in {SUMS}")
                found = _write(tar, member, target / name, said)
                if sums is None:
                    sums = _read_sums(target / SUMS, archive)
                elif found != sums[name]:
                    raise UserError(f"{archive}: {name} is not what was archived (its checksum is another)")
    except DAMAGED as error:
        raise UserError(f"{archive}: damaged{f' at or after {name}' if name else ''} ({error})") from None
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise UserError(f"{archive}: {name} cannot be written ({error.strerror})") from None
    missing = [name for name in sums or {SUMS: ""} if not (target / name).is_file()]
    if missing:
        raise UserError(f"{archive}: {missing[0]} is missing; the archive is truncated, or was changed")


def _inside(archive: Path, member: tarfile.TarInfo) -> str:
    """The name of a member below the archive's one folder; UserError for what is no plain file there."""
    path = PurePosixPath(member.name)
    plain = member.isreg() and not path.is_absolute() and len(path.parts) > 1 and ".." not in path.parts
    if not plain or any(map(is_control, member.name)) or "\\" in member.name:
        raise UserError(f"{archive}: {member.name} is refused: a link, no file, or a name that leads out of the folder")
    return str(PurePosixPath(*path.parts[1:]))


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, said: Said) -> str:
    """Write a member's content to ``path``; returns its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.size > shutil.disk_usage(path.parent).free:
        raise UserError(f"{member.name}: {member.size:,} bytes are more than the disk has room for")
    content, computed = tar.extractfile(member), hashlib.sha256()
    with path.open("xb") as file:
        while block := content.read(BLOCK):
            computed.update(block)
            file.write(block)
            said(len(block))
    return computed.hexdigest()


def _read_sums(path: Path, archive: Path) -> dict[str, str]:
    text = read_bytes(path, 64 * MIB).decode(errors="replace")
    lines = [line.partition("  ") for line in text.rstrip("\n").split("\n")]
    if any(len(known) != 64 or not name for known, _, name in lines):
        raise UserError(f"{archive}: {SUMS} is no list of checksums")
    return {name: known for known, _, name in lines}


def _below(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
