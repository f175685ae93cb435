"""Robots: which of their recorded numbers go into which slots of the unified vector, and which camera is which."""

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ablation.settings import Strict
from ablation.systems.rdt.slots import SLOTS, slots_of

View = Literal["exterior", "right_wrist", "left_wrist"]
VIEWS: tuple[View, ...] = get_args(View)
"""What the network's image tokens show, in their order."""
Preset = Literal["agilex", "aloha", "one_arm"]


class Vector(Strict):
    """A row of numbers in each step of an episode, and what they are."""

    key: str
    """Name of the dataset in the file."""
    slots: Annotated[tuple[str, ...], Field(min_length=1)]
    """What the numbers are, in order: parts of the unified vector, `left_arm_joints.0-5` or `right_gripper`; `-`: not used."""
    ranges: dict[str, tuple[float, float]] = {}
    """What is recorded for 0 and for 1, by part: a gripper's reading when closed and when open."""

    @field_validator("slots")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        slots_of(value)
        return value

    @model_validator(mode="after")
    def _ranges_of_slots(self) -> "Vector":
        for part, (low, high) in self.ranges.items():
            if part not in SLOTS or not set(SLOTS[part]) & set(slots_of(self.slots)):
                raise ValueError(f"ranges: {part} is none of the parts in slots")
            if low == high:
                raise ValueError(f"ranges: {part} reads {low:g} both for 0 and for 1")
        return self


class Robot(Strict):
    """Where a robot's episodes keep what the network is told and what it predicts."""

    state: Vector
    """Positions of a step."""
    action: Vector
    """Targets of a step."""
    cameras: dict[View, str] = {}
    """Name of the dataset with the pictures of each camera that there is."""


LEFT, RIGHT = ("left_arm_joints.0-5", "left_gripper"), ("right_arm_joints.0-5", "right_gripper")


def _robot(slots: tuple[str, ...], views: tuple[View, ...], state: dict | None = None, action: dict | None = None) -> Robot:
    names = {"exterior": "cam_high", "right_wrist": "cam_right_wrist", "left_wrist": "cam_left_wrist"}
    return Robot(
        state=Vector(key="observations/qpos", slots=slots, ranges=state or {}),
        action=Vector(key="action", slots=slots, ranges=action or {}),
        cameras={view: f"observations/images/{names[view]}" for view in views},
    )


ROBOTS: dict[Preset, Robot] = {
    "agilex": _robot(
        (*LEFT, *RIGHT),
        VIEWS,
        {"left_gripper": (0.0, 4.7908), "right_gripper": (0.0, 4.7888)},
        {"left_gripper": (0.0, 11.8997), "right_gripper": (0.0, 13.9231)},
    ),
    "aloha": _robot((*LEFT, *RIGHT), VIEWS),
    "one_arm": _robot(RIGHT, VIEWS[:2]),
}
"""agilex: the release's own machine, whose grippers it divides by these readings (data/hdf5_vla_dataset.py). aloha: Stanford's
ALOHA and ACT, whose recorder writes grippers from 0 to 1 (act, constants.py). one_arm: one arm as ALOHA's right one."""


def as_features(robot: Robot) -> Robot:
    """``robot`` with the names that LeRobot's converters give to ALOHA's datasets."""
    names = {"observations/qpos": "observation.state", "action": "action"}
    cameras = {view: f"observation.images.{key.rpartition('/')[2]}" for view, key in robot.cameras.items()}
    state, action = (one.model_copy(update={"key": names[one.key]}) for one in (robot.state, robot.action))
    return robot.model_copy(update={"state": state, "action": action, "cameras": cameras})
