"""Who holds the GPUs of a machine, and who waits for them: a file for each in one folder, locked for as long as that one lives.

The kernel ends a lock with its holder, however it dies, so what a dead member's file says is void. All files are read and written
under one more lock, which is held for moments; a member writes its own file only.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ablation.locks import try_lock, wait_lock

SILENT_SECONDS = 30.0  # a member that waits asks again far more often; one that is stopped keeps nobody from a free card
MEMBER = "member-"


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
        """Wants ``count`` of ``cards``; with ``mib``, only that much of each, which has ``card_mib``."""
        self.folder, self.count, self.card_mib = folder, count, card_mib
        self.wants = Member(list(cards), mib)
        with self._alone():
            last = max((int(path.name.removeprefix(MEMBER)) for path in self._files()), default=0)
            self.path = folder / f"{MEMBER}{last + 1:012d}"
            self._descriptor = try_lock(self.path)
            self._write(self.wants)

    def ask(self) -> list[str] | None:
        """The cards that this program holds from now on; None while it must wait."""
        with self._alone():
            others = self._others()
            beside = {card: [one for one in others.values() if card in one.cards] for card in self.wants.cards}
            free = [card for card in self.wants.cards if self._room(beside[card])]
            if len(free) < self.count:
                os.utime(self.path)
                return None
            held = sorted(free, key=lambda card: len(beside[card]))[: self.count]  # where fewest are
            self._write(replace(self.wants, cards=held, waits=False))
            for card in held:
                together = [self.path, *(path for path, one in others.items() if card in one.cards and not one.waits)]
                for path in together:
                    _met(path, len(together)).touch()
            return held

    def most(self) -> int:
        """How many held one of this program's cards at a time, at most, itself among them."""
        return max((int(path.suffix[1:]) for path in self.folder.glob(f"{self.path.name}.*")), default=1)

    def leave(self) -> None:
        """Hold nothing, and wait no more; processes that this one has started hold on until the last has ended."""
        os.close(self._descriptor)

    def _room(self, others: Sequence[Member]) -> bool:
        """Whether this program may have its part of a card beside ``others``, who hold it or wait for it."""
        if not others:
            return True
        parts = [self.wants.mib, *(one.mib for one in others)]
        return not any(one.waits for one in others) and None not in parts and sum(parts) <= self.card_mib

    def _others(self) -> dict[Path, Member]:
        """Those that live and hold cards, or wait since before this program."""
        found = {}
        for path in self._files():
            if path == self.path:
                continue
            if (descriptor := try_lock(path)) is not None:
                _forget(path)
                os.close(descriptor)
                continue
            member = Member(**json.loads(path.read_text()))
            waits = path < self.path and time.time() - path.stat().st_mtime < SILENT_SECONDS
            if waits or not member.waits:
                found[path] = member
        return found

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"{MEMBER}*") if not path.suffix)

    def _write(self, member: Member) -> None:
        content = json.dumps(asdict(member)).encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = wait_lock(self.folder / "lock")
        try:
            yield
        finally:
            os.close(descriptor)


def _met(path: Path, number: int) -> Path:
    """A file that says to the member of ``path`` that ``number`` were on its card: others may not write into its own."""
    return path.with_name(f"{path.name}.{number}")


def _forget(path: Path) -> None:
    for note in path.parent.glob(f"{path.name}.*"):
        note.unlink()
    path.unlink()
