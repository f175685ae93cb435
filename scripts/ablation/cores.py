"""How many CPU cores this process may use: what its affinity and its control group allow, not what the machine has."""

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def usable_cores(groups: Path = GROUPS, member: Path = Path("/proc/self/cgroup")) -> int:
    """At least one. ``groups``: where control groups are mounted; ``member``: which of them this process is in."""
    return max(1, min([len(os.sched_getaffinity(0)), *map(ceil, _quotas(groups, member))]))


def _quotas(groups: Path, member: Path) -> Iterator[float]:
    """Cores that the group of this process, and each above it, gives; of cgroup v2, and of v1's cpu controller."""
    try:
        lines = [line.split(":", 2) for line in member.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        root = groups / controllers if controllers else groups
        if controllers and "cpu" not in controllers.split(","):
            continue
        inside = root / path.lstrip("/")
        for folder in (inside, *(above for above in inside.parents if above.is_relative_to(root))):
            with suppress(OSError, ValueError, ZeroDivisionError):
                yield _quota(folder, v1=bool(controllers))


def _quota(folder: Path, v1: bool) -> float:
    """Raises an error where the group sets none."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    texts = (
        [(folder / name).read_text(encoding="utf-8") for name in names]
        if v1
        else (folder / "cpu.max").read_text(encoding="utf-8").split()
    )
    quota, period = map(int, texts)
    if quota <= 0:
        raise ValueError("no limit")
    return quota / period
