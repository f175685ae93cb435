"""A staged study as one file: the same study gives the same bytes, whoever packs it and when."""

import gzip
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from ablation.files import digest, replacing, write_text

SUMS = "SHA256SUMS"  # as sha256sum -c reads it
Said = Callable[[int], object]  # told how many bytes were done


def files_of(folder: Path) -> dict[str, Path]:
    """All files of a folder by their names below it, in order."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def checksums(folder: Path, known: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each file in ``folder``, by name; those in ``known`` are not computed again."""
    return {name: known.get(name) or str(digest(path)) for name, path in files_of(folder).items() if name != SUMS}


def write_checksums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write them into ``folder``."""
    write_text(folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def pack(folder: Path, output: Path, top: str, when: int, said: Said = lambda done: None) -> None:
    """Write all files of ``folder``, links followed, as a compressed tar whose one folder is ``top``; the checksums come first.

    ``when``: seconds since 1970, for all of them. ``output`` is replaced once it is complete and on disk.
    """
    names = sorted(files_of(folder), key=lambda name: (name != SUMS, name))
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(output) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=when) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            path = folder / name
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.mode = path.stat().st_size, when, 0o644
            with path.open("rb") as file:
                tar.addfile(member, _Told(file, said))


class _Told:
    """A file whose reader tells how much of it was read."""

    def __init__(self, file: BinaryIO, said: Said):
        self.file, self.said = file, said

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.said(len(block))
        return block


def copy_out(folder: Path, target: Path) -> None:
    """All files of ``folder``, links followed, as files of their own in ``target``."""
    for name, path in files_of(folder).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(os.path.realpath(path), target / name)
