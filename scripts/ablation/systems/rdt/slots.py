"""The slots of RDT's unified vector, in which every robot finds its own, for states and actions (configs/state_vec.py)."""

import re

UNIFIED = 128
"""Entries of the unified vector of states and actions."""

SLOTS = {
    "right_arm_joints": range(10),
    "right_gripper": range(10, 15),
    "right_arm_velocities": range(15, 25),
    "right_gripper_velocities": range(25, 30),
    "right_eef_position": range(30, 33),
    "right_eef_rotation": range(33, 39),
    "right_eef_velocity": range(39, 42),
    "right_eef_angular_velocity": range(42, 45),
    "left_arm_joints": range(50, 60),
    "left_gripper": range(60, 65),
    "left_arm_velocities": range(65, 75),
    "left_gripper_velocities": range(75, 80),
    "left_eef_position": range(80, 83),
    "left_eef_rotation": range(83, 89),
    "left_eef_velocity": range(89, 92),
    "left_eef_angular_velocity": range(92, 95),
    "base_velocity": range(100, 102),
    "base_angular_velocity": range(102, 103),
}
"""Joints in rad, positions in m, rotations as the first two columns of the matrix (6D), grippers 0 (closed) to 1 (open)."""

GRIPPERS = ("left_gripper", "right_gripper")
JOINTS = ("left_arm_joints", "right_arm_joints")
UNUSED = "-"
FORM = re.compile(r"(\w+)(?:\.(\d+)(?:-(\d+))?)?")


def slots_of(names: tuple[str, ...]) -> list[int | None]:
    """The slot of each recorded number; None for one that is not used.

    A name is a part of the vector, and means its first slot; or ``part.2``, or ``part.0-5``, six numbers. Raises ValueError.
    """
    found: list[int | None] = []
    for name in names:
        found += [None] if name == UNUSED else _slots(name)
    used = [slot for slot in found if slot is not None]
    if twice := {slot for slot in used if used.count(slot) > 1}:
        raise ValueError(f"two recorded numbers go into {', '.join(sorted(map(part_of, twice)))}")
    return found


def part_of(slot: int) -> str:
    """The part of the vector that a slot belongs to."""
    return next((name for name, span in SLOTS.items() if slot in span), f"slot {slot}")


def _slots(name: str) -> list[int]:
    match = FORM.fullmatch(name)
    if not match or match[1] not in SLOTS:
        known = ", ".join(SLOTS)
        known = ", ".join((*SLOTS, UNUSED))
        raise ValueError(f"{name!r} is no part of the unified vector; there are {known}")
    span, first = SLOTS[match[1]], int(match[2] or 0)
    last = int(match[3]) if match[3] else first
    if not first <= last < len(span):
        raise ValueError(f"{name!r}: {match[1]} has the slots 0 to {len(span) - 1}")
    return [*span[first : last + 1]]
