"""The values that a robot's mapping gives: printed, and refused where they cannot be what the unified vector wants."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.systems.rdt.data.unified import Mapping
from ablation.systems.rdt.settings import Data
from ablation.systems.rdt.slots import GRIPPERS, JOINTS, SLOTS

log = logging.getLogger(__name__)

BEYOND = 0.25  # by which grippers may leave 0..1: leaders are opened further than followers
HALF_OPEN = 0.5  # a gripper that moves and is never more open may be in another unit
MOVES = 0.01
TURN = 4 * np.pi  # rad; no joint of an arm turns further
UNSCALED = (-0.25, 1.25)  # what a gripper reads that is recorded from 0 to 1
OPENS = 0.5


class Range(NamedTuple):
    """Lowest and highest value of each slot [128] over some steps; ``raw`` the same of the recorded numbers [J]."""

    low: NDArray[np.floating]
    high: NDArray[np.floating]
    raw: NDArray[np.floating]


def range_of(recorded: NDArray, mapping: Mapping) -> Range:
    """Of the numbers [T, J] of an episode."""
    values = mapping.to_unified(recorded)
    return Range(values.min(axis=0), values.max(axis=0), np.stack([recorded.min(axis=0), recorded.max(axis=0)]))


def check_ranges(root: Path, data: Data, of_episodes: Sequence[tuple[Range, Range]]) -> None:
    """Say what the states and actions of all episodes come to, by part of the vector. UserError where that cannot be right."""
    problems, scaled = [], []
    for kind, part, ends, recorded, divided in _parts(data, of_episodes):
        log.info("%s of %s: %.4g to %.4g", kind, part, *ends)
        problems += _problems(f"{kind}: {part}", part, ends, recorded)
        scaled += [recorded] * (divided and part in GRIPPERS)
    low, high = (end(scaled, initial=0.0) for end in (np.min, np.max)) if scaled else (0.0, 0.0)
    if isinstance(data.robot, str) and scaled and UNSCALED[0] <= low and OPENS < high <= UNSCALED[1]:
        problems.append(
            f"all grippers are recorded from {low:.4g} to {high:.4g}, which is 0 to 1 already, and would be divided:"
            " set data.robot: aloha, or, if they never open further, a mapping with their ranges"
        )
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        named = data.robot if isinstance(data.robot, str) else "the mapping"
        raise UserError(f"data.robot: {named} does not fit the episodes below {root}:{listed}")


def _parts(
    data: Data, of_episodes: Sequence[tuple[Range, Range]]
) -> Iterator[tuple[str, str, tuple[float, float], NDArray, bool]]:
    """Of state and action, each part in use: its values' ends, what is recorded of it, and whether that is divided."""
    for number, (kind, vector) in enumerate((("state", data.mapping.state), ("action", data.mapping.action))):
        mapping, found = Mapping(vector), [pair[number] for pair in of_episodes]
        low, high = np.min([one.low for one in found], axis=0), np.max([one.high for one in found], axis=0)
        raw = np.concatenate([one.raw for one in found])
        for part in SLOTS:
            if slots := [slot for slot in SLOTS[part] if mapping.mask[slot]]:
                columns = [mapping.columns[mapping.slots.index(slot)] for slot in slots]
                recorded = np.array([raw[:, columns].min(), raw[:, columns].max()])
                yield kind, part, (float(low[slots].min()), float(high[slots].max())), recorded, part in vector.ranges


def _problems(name: str, part: str, ends: tuple[float, float], recorded: NDArray) -> Iterator[str]:
    low, high = ends
    if part in JOINTS and max(-low, high) > TURN:
        yield f"{name} reach {max(-low, high):.4g}; they are in rad: are these degrees?"
    if part not in GRIPPERS:
        return
    if low < -BEYOND or high > 1 + BEYOND:
        yield (
            f"{name} goes from {low:.4g} to {high:.4g}, not from 0 (closed) to 1 (open): recorded are {recorded.min():.4g} to"
            f" {recorded.max():.4g}; give what is read closed and open in data.robot's ranges, or name another robot"
        )
    elif high - low > MOVES and high < HALF_OPEN:
        log.warning("%s is never more than %.0f %% open; is its range another?", name, 100 * high)
