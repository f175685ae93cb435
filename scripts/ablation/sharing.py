"""Who holds the GPUs of a machine, and who waits for them: a file for each in one folder, locked for as long as that one lives.

The kernel ends a lock with its holder, however it dies, so what a dead member's file says is void. All files are read and
written while the folder itself is locked, which is for moments; a member writes its own file only.

All users of the machine write into the folder. What one of them puts there that is no member's file holds nothing, and a member
can make others wait, and no more. Nobody can remove another user's files, so these stay until a job of that user comes.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ablation import leave
from ablation.errors import UserError
from ablation.locks import lock_or_close

SILENT_SECONDS = 30.0  # a member that waits asks again far more often; one that is stopped keeps nobody from a free card
MOMENT_SECONDS = 0.01
NAME = re.compile(r"member-\d{20}")
NOTE = re.compile(rf"({NAME.pattern})\.(\d{{1,3}})")  # says to the member that so many were on its card
OWN = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
OTHERS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no pipe is waited for
LONGEST = 65536  # bytes of a member's file


@dataclass(frozen=True)
class Member:
    """One that holds ``cards``, or waits for some of them.

    ``mib``: what it takes of each, with its CUDA context; None is the whole card.
    """

    cards: Sequence[str]
    mib: int | None
    waits: bool = True


class Queue:
    """The place of one program in ``folder``: behind those that came before and want the same cards, until it holds some."""

    def __init__(self, folder: Path, cards: Sequence[str], count: int, mib: int | None = None, card_mib: int = 0):
        """Wants ``count`` of ``cards``; with ``mib``, only that much of each, which has ``card_mib``.

        Raises :class:`UserError` where the folder cannot be used, as all that is done in it does.
        """
        self.folder, self.count, self.card_mib = folder, count, card_mib
        self.wants = Member(list(cards), mib)
        with self._alone():
            self._tidy()
            self.path, self._descriptor = self._enter()
            self._write(self.wants)

    def ask(self) -> list[str] | None:
        """The cards that this program holds from now on; None while it must wait."""
        with self._alone():
            os.utime(self.path)  # which fails where somebody has removed it
            others = self._others()
            beside = {card: [one for one in others.values() if card in one.cards] for card in self.wants.cards}
            free = [card for card in self.wants.cards if self._room(beside[card])]
            if len(free) < self.count:
                return None
            held = sorted(free, key=lambda card: len(beside[card]))[: self.count]  # where fewest are
            self._write(replace(self.wants, cards=held, waits=False))
            for card in held:
                together = [self.path, *(path for path, one in others.items() if card in one.cards and not one.waits)]
                for path in together:
                    _tell(path, len(together))
            return held

    def most(self) -> int:
        """How many held one of this program's cards at a time, at most, itself among them."""
        if self.wants.mib is None:
            return 1
        notes = (NOTE.fullmatch(path.name) for path in self.folder.glob(f"{self.path.name}.*"))
        return max((int(note[2]) for note in notes if note), default=1)

    def leave(self) -> None:
        """Hold nothing, and wait no more; processes that this one has started hold on until the last has ended."""
        os.close(self._descriptor)

    def _enter(self) -> tuple[Path, int]:
        """This program's file, behind all others, readable by all users whatever the umask."""
        number = time.time_ns()
        while True:
            path = self.folder / f"member-{number:020d}"
            with suppress(FileExistsError):
                descriptor = os.open(path, OWN)
                os.fchmod(descriptor, 0o644)
                lock_or_close(descriptor, path)
                os.set_inheritable(descriptor, True)  # so that it is held until the last process of a training has ended
                return path, descriptor
            number += 1

    def _room(self, others: Sequence[Member]) -> bool:
        """Whether this program may have its part of a card beside ``others``, who hold it or wait for it."""
        if not others:
            return True
        parts = [self.wants.mib, *(one.mib for one in others)]
        return not any(one.waits for one in others) and None not in parts and sum(parts) <= self.card_mib

    def _others(self) -> dict[Path, Member]:
        """Those that live and hold cards, or wait since before this program."""
        found = {}
        for path in self.folder.iterdir():
            if path == self.path or not NAME.fullmatch(path.name):
                continue
            with suppress(OSError):  # a file that its owner has hidden, or that is none
                member = _living(path)
                waits = path < self.path and time.time() - path.lstat().st_mtime < SILENT_SECONDS
                if member is not None and (waits or not member.waits):
                    found[path] = member
        return found

    def _tidy(self) -> None:
        """Remove what this user has told members that are no more."""
        for path in self.folder.iterdir():
            note = NOTE.fullmatch(path.name)
            if note and not (self.folder / note[1]).exists():
                _remove(path)

    def _write(self, member: Member) -> None:
        content = json.dumps(asdict(member)).encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            descriptor = _locked(self.folder)
            try:
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UserError(
                f"{self.folder}: GPUs cannot be leased in this folder ({error.strerror}); all users must be able to write"
                " into it: have its owner or root remove it, or give it mode 1777"
            ) from None


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock of ``folder``, which is made where there is none. It is waited for."""
    while True:
        _make(folder)
        descriptor = os.open(folder, OTHERS | os.O_DIRECTORY)
        if lock_or_close(descriptor, folder):
            if os.path.samestat(os.fstat(descriptor), folder.lstat()):
                return descriptor
            os.close(descriptor)  # of a folder that was removed just now
        leave.check()
        time.sleep(MOMENT_SECONDS)


def _make(folder: Path) -> None:
    if folder.exists():
        return
    umask = os.umask(0)  # with a folder that were opened to all a moment later, another user's job would fail
    try:
        folder.mkdir(mode=0o1777, exist_ok=True)
    finally:
        os.umask(umask)


def _living(path: Path) -> Member | None:
    """What the member of ``path`` says; None where it is dead, or says nothing that one of these programs writes."""
    descriptor, probe = os.open(path, OTHERS), os.open(path, OTHERS)
    try:
        if lock_or_close(probe, path):
            _forget(path)
            os.close(probe)
            return None
        return _read(os.pread(descriptor, LONGEST, 0))
    finally:
        os.close(descriptor)


def _read(content: bytes) -> Member | None:
    try:
        found = json.loads(content)
        cards, mib, waits = found["cards"], found["mib"], found["waits"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(cards, list) or type(waits) is not bool or not (mib is None or (type(mib) is int and mib >= 0)):
        return None
    return Member(cards, mib, waits)


def _tell(path: Path, number: int) -> None:
    """Tell the member of ``path`` that ``number`` were on its card: others may not write into its own file."""
    with suppress(FileExistsError):
        os.close(os.open(f"{path}.{number}", OWN))


def _forget(path: Path) -> None:
    for note in path.parent.glob(f"{path.name}.*"):
        _remove(note)
    _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # another user's
        path.unlink()
