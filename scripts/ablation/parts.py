"""Prepared data as a graph of parts: what is made, from which other parts, with which settings.

A part's id holds a hash of all it depends on, so runs that share data share its files, and a stale file cannot be mistaken
for the right one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ablation.canonical import short_hash


@dataclass(frozen=True)
class Part:
    """One folder of prepared data. ``stage`` and ``settings`` tell the system what to make of ``needs``."""

    stage: str
    name: str
    settings: dict[str, Any]
    needs: tuple["Part", ...] = ()
    gpus: int = 0
    """GPUs that making it is fast on; like ``mem_gib``, no part of the content."""
    mem_gib: int = 4
    """Host memory that making it takes."""
    resumable: bool = False
    """Whether its making goes on from what an interrupted one left in its folder."""

    @property
    def id(self) -> str:
        """The folder's name: readable, and unique to the content."""
        return (
            f"{self.stage}-{self.name}-{short_hash([self.stage, self.name, self.settings, [need.id for need in self.needs]])}"
        )

    def closure(self) -> Iterator["Part"]:
        """The part and all it needs."""
        yield self
        for need in self.needs:
            yield from need.closure()
