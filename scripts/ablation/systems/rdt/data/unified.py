"""The unified vector of RDT: 128 slots in which every robot finds its own, for states and actions alike.

Slots as in the release (configs/state_vec.py). A robot with one arm uses the RIGHT slots.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.settings import UNIFIED

SIZE = UNIFIED
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

Kind = Literal["state", "action"]
ARM = 7  # six joints in rad, then the gripper
GRIPPERS: dict[Kind, dict[str, float]] = {
    "state": {"left": 4.7908, "right": 4.7888},
    "action": {"left": 11.8997, "right": 13.9231},
}
"""What ALOHA's grippers read when open, by which the release divides (data/hdf5_vla_dataset.py)."""


def aloha_to_unified(qpos: NDArray, kind: Kind = "state") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Joints [T, 14] (left arm, right arm) or [T, 7] (one arm) -> values [T, 128] and the mask [128] of the slots in use."""
    arms = _arms(qpos.shape[-1])
    slots, mask = aloha_slots(arms), np.zeros(SIZE, np.float32)
    values = np.zeros((len(qpos), SIZE), np.float32)
    values[:, slots] = qpos / _scales(arms, kind)
    mask[slots] = 1
    return values, mask


def unified_to_aloha(values: NDArray, arms: int, kind: Kind = "state") -> NDArray[np.float32]:
    """The way back: values [T, 128] -> joints [T, 7 * arms]."""
    return (values[:, aloha_slots(arms)] * _scales(arms, kind)).astype(np.float32)


def aloha_slots(arms: int) -> list[int]:
    """The slots of ALOHA's joints, in ALOHA's order."""
    return [slot for side in _sides(arms) for slot in (*SLOTS[f"{side}_arm_joints"][: ARM - 1], SLOTS[f"{side}_gripper"][0])]


def _sides(arms: int) -> tuple[str, ...]:
    return ("left", "right") if arms == 2 else ("right",)


def _arms(width: int) -> int:
    if width not in (ARM, 2 * ARM):
        raise ValueError(f"{width} joints; ALOHA has {ARM} or {2 * ARM}")
    return width // ARM


def _scales(arms: int, kind: Kind) -> NDArray[np.float64]:
    scales = np.ones((arms, ARM))
    scales[:, -1] = [GRIPPERS[kind][side] for side in _sides(arms)]
    return scales.reshape(-1)
