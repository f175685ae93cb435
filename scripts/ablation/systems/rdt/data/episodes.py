"""All episodes of a folder; bad ones are refused or left out, never silently. Which are trained on, and which are kept."""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ablation.errors import UserError, readable
from ablation.files import write_csv, write_json
from ablation.systems.rdt.data.episode import HDF5, UNREADABLE, Episode, Fault, examine, recording
from ablation.systems.rdt.data.ranges import check_ranges
from ablation.systems.rdt.settings import Data

log = logging.getLogger(__name__)

LIST, LEFT_OUT = "episodes.json", "left_out.csv"
PIECE = 2**20  # bytes


class Found(NamedTuple):
    """The episodes of a folder, by name, and those left out."""

    episodes: list[Episode]
    faults: list[Fault]


def find_episodes(root: Path, data: Data) -> Found:
    """Examine every episode below ``root``.

    UserError where ``data.bad`` is refuse and one is bad, where none is left, or where values cannot be right.
    """
    paths = _paths(root, data)
    examined = [examine(root, path, data) for path in tqdm(paths, desc="examining episodes", disable=None)]
    found = Found([e for e in examined if isinstance(e, Episode)], [e for e in examined if isinstance(e, Fault)])
    listed = "".join(f"\n  {fault}" for fault in found.faults)
    bad = f"{len(found.faults)} of {len(paths)} episodes are bad"
    if found.faults and data.bad == "refuse":
        raise UserError(f"data.root: {bad}; mend or remove them, or set data.bad: skip{listed}")
    if not found.episodes:
        raise UserError(f"data.root: none of the {len(paths)} episodes below {root} can be used{listed}")
    if found.faults:
        log.warning("%s and left out:%s", bad, listed)
    check_ranges(root, data, [episode.ranges for episode in found.episodes])
    return found


def count_steps(root: Path, data: Data) -> int:
    """Steps of all episodes below ``root`` that can be opened: a quick look, which examines nothing."""
    if data.source == "lerobot":
        from ablation.systems.rdt.data.lerobot import data_set

        with suppress(UserError):
            return sum(listed.steps for listed in data_set(root).episodes.values())
        return 0
    steps = 0
    for path in root.rglob(f"*{HDF5}"):
        with suppress(*UNREADABLE), recording(path, data.mapping) as opened:
            steps += len(opened.file[data.mapping.action.key])
    return steps


def _paths(root: Path, data: Data) -> list[Path]:
    if data.source == "lerobot":
        from ablation.systems.rdt.data.lerobot import data_set, paths_of

        data_set(root).check(data.mapping, data.frequency)
        return paths_of(root)
    found = sorted(root.rglob(f"*{HDF5}"))
    if not found:
        raise UserError(f"data.root: no *{HDF5} file below {root}; put the episodes there, or name their folder")
    return found


def write_list(found: Found, root: Path, out: Path) -> None:
    """``episodes.json``: the whole episodes below ``root``, and how to tell a changed file; ``left_out.csv``: the others."""
    stamps = {path: _stamp(path) for path in {path for e in found.episodes for path in e.files}}
    rows = [
        {
            "name": e.name,
            "suffix": e.path.suffix,
            "steps": e.steps,
            "first": e.first,
            "instructions": e.instructions,
            "files": [[path.relative_to(root).as_posix(), *stamps[path]] for path in e.files],
        }
        for e in found.episodes
    ]
    write_json(out / LIST, {"root": None if root == out else str(root), "episodes": rows})
    if found.faults:
        write_csv(
            out / LEFT_OUT, [{key: readable(str(value)) for key, value in fault._asdict().items()} for fault in found.faults]
        )


def read_list(folder: Path) -> list[Episode]:
    """The episodes that :func:`write_list` listed in ``folder``. UserError where a file is not what was examined."""
    written = json.loads((folder / LIST).read_text(encoding="utf-8"))
    root = folder if written["root"] is None else Path(written["root"])
    episodes = [_listed(root, row) for row in written["episodes"]]
    named = {name for row in written["episodes"] for name, *_ in row["files"]}
    stamps = {name: _stamp(root / name) for name in named if (root / name).is_file()}
    changed = [
        str(episode.path)
        for episode, row in zip(episodes, written["episodes"], strict=True)
        if any(stamps.get(name) != tuple(stamp) for name, *stamp in row["files"])
    ]
    if changed:
        listed = ", ".join(changed[:5]) + " ..." * (len(changed) > 5)
        raise UserError(f"{len(changed)} episodes are gone or have changed: {listed}\n  delete {folder} to prepare them anew")
    return episodes


def split(episodes: Sequence[Episode], test: float) -> tuple[list[Episode], list[Episode]]:
    """Episodes to train on, and the share ``test`` that is kept, evenly spread; at least one of each, or UserError."""
    if len(episodes) < 2:
        raise UserError("data.test: one episode cannot be split into training and evaluation; at least two are needed")
    count = min(len(episodes) - 1, max(1, round(test * len(episodes))))
    kept = {int((number + 0.5) * len(episodes) / count) for number in range(count)}
    return (
        [episode for number, episode in enumerate(episodes) if number not in kept],
        [episode for number, episode in enumerate(episodes) if number in kept],
    )


def _listed(root: Path, row: dict) -> Episode:
    instructions = tuple(tuple(kind) for kind in row["instructions"])
    path = root / f"{row['name']}{row['suffix']}"
    return Episode(row["name"], path, row["steps"], row["first"], instructions, tuple(root / name for name, *_ in row["files"]))


def _stamp(path: Path) -> tuple[int, str]:
    """Size, and the hash of three pieces: a copy is the same file, and terabytes need not be read to see that."""
    size = path.stat().st_size
    found = hashlib.sha256()
    with path.open("rb") as file:
        for start in (0, (size - PIECE) // 2, size - PIECE):
            file.seek(max(0, start))
            found.update(file.read(PIECE))
    return size, found.hexdigest()
