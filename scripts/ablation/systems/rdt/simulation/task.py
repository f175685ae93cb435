"""The task: two coloured blocks lie on the table, the instruction names one, and the hand must reach for it and stay there.

Needs neither numpy nor the simulator, so that settings may name what is here.
"""

from typing import Literal, NamedTuple, get_args

Side = Literal["home", "away"]


class Domain(NamedTuple):
    """What differs between the robot's surroundings."""

    colours: tuple[str, str]
    """Names of the blocks' colours, that of the block to reach for first."""
    mount: tuple[float, float]
    """Where the robot stands, to the left of the middle (m), and how far it is turned to the left (rad)."""


DOMAINS: dict[Side, Domain] = {
    "home": Domain(("red", "blue"), (0.0, 0.0)),
    "away": Domain(("red", "blue"), (0.08, -0.35)),
}
"""A policy that was trained at home meets, away, joints that point elsewhere on the table."""
SIDES: tuple[Side, ...] = get_args(Side)

COLOURS = {"red": (0.85, 0.1, 0.1), "blue": (0.1, 0.2, 0.85), "green": (0.1, 0.65, 0.15), "yellow": (0.9, 0.8, 0.1)}
"""RGB in [0, 1]."""

FREQUENCY = 25
"""Control steps a second."""
ABOVE = 0.01
"""The hand shall come to a point this far above the middle of the named block's top, in m."""
TOLERANCE = 0.03
"""How near counts as there, in m."""
HOLD = 10
"""Steps that the hand must stay there, without a break."""
LIMIT = 100
"""Steps after which a rollout has failed."""

REGION = ((0.28, 0.44), (-0.16, 0.16))
"""Where the blocks lie, in m in front of the middle and to the left of it."""
APART = 0.13
"""Least distance of the blocks' middles, in m."""


def instructions(colour: str) -> dict[str, str | list[str]]:
    """The instruction in ALOHA's three kinds, as they stand in the file beside the episodes."""
    return {
        "instruction": f"Reach for the {colour} block.",
        "simplified_instruction": [f"Reach {colour} block.", f"{colour.capitalize()} block."],
        "expanded_instruction": [
            f"Move the right hand over the {colour} block on the table and keep it there.",
            f"With the right arm, go to the {colour} block without touching the other one, and stay above it.",
        ],
    }
