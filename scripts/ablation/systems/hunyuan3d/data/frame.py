"""How shapes from outside are measured: in which box they lie, and on which side their distances are positive.

The release's own tool (hy3dshape/tools/watertight) writes shapes into [0, 1]^3, their corner at the origin, and distances that
are positive inside; what it makes of a mesh is a thin shell around the surface. The networks know shapes in the middle of
[-1, 1]^3.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablation.errors import UserError
from ablation.systems.hunyuan3d.data.layout import Distances, SurfacePoints

HALF = 0.99  # the longest side of a shape reaches from -HALF to HALF
VOLUME = 1.05  # the places all over lie within [-VOLUME, VOLUME]
OFF = 0.005  # by which a shape may be beside the middle, or its half another than ours, and stays as it is
MISSED = 4  # divided by the number of points: how far from the bounds of a ball theirs may be
MARGIN = 0.02  # of the shape's longest side: places so far beyond its bounds are surely outside
FACING = 0.9  # cosine to the normal above which a place lies before or behind a point of the surface
SURE = 0.8  # of the places that tell the sign must agree, less those that do not
ENOUGH = 50  # places that tell a sign
TESTED = 20_000  # places that are looked at
SAME = (0.8, 1.25)  # between a stored distance and the one to the surface's points, in the middle of all
DEEP = 0.02  # where no place lies deeper, distances describe a shell; the release's tool makes one 0.016 deep

Sign = Literal[-1, 0, 1]


class Frame(NamedTuple):
    """Where a shape's data lie: ``centre`` [3], ``half`` its longest side; ``sign`` 1 where distances are positive outside, -1

    inside, 0 where they have none.
    """

    centre: NDArray[np.float64]
    half: float
    sign: Sign
    unsure: float = 0.0
    """By how much the bounds of the points may miss those of the surface: few points do not reach them."""

    @property
    def is_ours(self) -> bool:
        """Whether nothing needs to be changed."""
        return self.sign == 1 and max(float(np.abs(self.centre).max()), abs(self.half - HALF)) <= OFF + self.unsure

    def __str__(self) -> str:
        sides = {1: "positive outside", -1: "positive inside", 0: "without a sign"}
        middle = ", ".join(f"{value:.3f}" for value in self.centre)
        return f"longest side {2 * self.half:.3f}, middle ({middle}), distances {sides[self.sign]}"


def frame_of(surface: SurfacePoints, distances: Mapping[str, Distances], path: Path) -> Frame:
    """The frame of a shape's data. UserError naming ``path`` where surface and distances contradict each other."""
    places = surface.random[:, :3].astype(np.float64)
    if not len(places):
        raise UserError(f"{path}: there are no points of the surface to hold the distances against")
    low, high = places.min(axis=0), places.max(axis=0)
    half = float((high - low).max()) / 2
    if not half > 0:
        raise UserError(f"{path}: all points of the surface lie at one place")
    margin = 2 * half * MARGIN
    facing = _facing(surface, distances, half)
    _check_size(facing, path)
    sign = _sign(facing, _beyond(distances, low - margin, high + margin), distances, path)
    return Frame((low + high) / 2, half, sign, MISSED / len(places))


def in_our_frame(
    frame: Frame, surface: SurfacePoints, distances: Mapping[str, Distances]
) -> tuple[SurfacePoints, dict[str, Distances]]:
    """The shape in the middle of [-1, 1]^3, distances positive outside; of the places all over, those beyond are left out."""
    scale, sign = HALF / frame.half, frame.sign or 1

    def moved(places: NDArray) -> NDArray[np.float32]:
        return ((places - frame.centre) * scale).astype(np.float32)

    def of(region: str, known: Distances) -> Distances:
        places = moved(known.points)
        kept = (np.abs(places) <= VOLUME).all(axis=1) if region == "vol" else slice(None)
        values = known.values * scale * sign if frame.sign else np.abs(known.values) * scale
        return Distances(places[kept], values[kept])

    parts = (np.concatenate([moved(rows[:, :3]), rows[:, 3:]], axis=1) for rows in surface)
    return SurfacePoints(*parts), {region: of(region, known) for region, known in distances.items()}


def has_volume(distances: Distances) -> bool:
    """Whether places lie deeper inside than a shell is thick; of a shell no volume can be compared."""
    return bool(len(distances.values)) and float(distances.values.min()) < -DEEP


class _Facing(NamedTuple):
    """Places straight before or behind a point of the surface: the distance that is stored, the one to the point, signed by its

    normal.
    """

    stored: NDArray[np.float64]
    measured: NDArray[np.float64]


def _facing(surface: SurfacePoints, distances: Mapping[str, Distances], half: float) -> _Facing:
    from scipy.spatial import cKDTree  # only here: training asks no more than whether there is a volume

    places, stored = (np.concatenate(parts).astype(np.float64) for parts in zip(*distances.values(), strict=True))
    chosen = np.linspace(0, len(stored) - 1, min(TESTED, len(stored))).astype(np.int64)
    places, stored = places[chosen], stored[chosen]
    points, normals = surface.random[:, :3].astype(np.float64), surface.random[:, 3:].astype(np.float64)
    lengths, nearest = cKDTree(points).query(places)
    along = ((places - points[nearest]) * normals[nearest]).sum(axis=1)
    along /= np.maximum(np.linalg.norm(normals[nearest], axis=1), np.finfo(np.float64).tiny)
    tells = (np.abs(along) >= FACING * lengths) & (lengths > MARGIN * half / 4)
    return _Facing(stored[tells], along[tells])


def _beyond(distances: Mapping[str, Distances], low: NDArray, high: NDArray) -> NDArray[np.float64]:
    """The distances of places that lie beyond the bounds of the surface, hence outside."""
    return np.concatenate(
        [known.values[((known.points < low) | (known.points > high)).any(axis=1)] for known in distances.values()]
    )


def _check_size(facing: _Facing, path: Path) -> None:
    if len(facing.stored) < ENOUGH:
        return
    ratio = float(np.median(np.abs(facing.stored / facing.measured)))
    if not SAME[0] <= ratio <= SAME[1]:
        raise UserError(
            f"{path}: its distances are {ratio:.3g} times those to the points of the surface: both must be in one unit, and of"
            " one shape; make the shape's data again"
        )


def _sign(facing: _Facing, beyond: NDArray, distances: Mapping[str, Distances], path: Path) -> Sign:
    values = np.concatenate([known.values for known in distances.values()])
    if not ((values > 0).any() and (values < 0).any()):
        return 0
    votes = {
        "the normals of the surface": np.sign(facing.measured * facing.stored),
        "places beyond the shape's bounds": np.sign(beyond),
    }
    votes = {what: vote[vote != 0] for what, vote in votes.items()}
    told = {what: float(vote.mean()) for what, vote in votes.items() if len(vote) >= ENOUGH}
    signs = {what: 0 if abs(mean) < SURE else int(np.sign(mean)) for what, mean in told.items()}
    found = set(signs.values())
    if len(found) == 1 and 0 not in found:
        return 1 if found == {1} else -1
    words = {1: "positive outside", -1: "positive inside", 0: "neither"}
    said = "; ".join(f"by {what}: {words[sign]} ({told[what]:+.2f} of -1 to 1)" for what, sign in signs.items())
    raise UserError(
        f"{path}: it cannot be told on which side its distances are positive ({said or 'no place tells it'}); are the normals"
        " turned inwards, or the distances of another shape? Make the shape's data again"
    )
