"""One robot at its table, in MuJoCo: what moves it, where it is, and whether it has done its task."""

from functools import cache
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.simulation.task import (
    ABOVE,
    APART,
    COLOURS,
    DOMAINS,
    FREQUENCY,
    HOLD,
    LIMIT,
    REGION,
    TOLERANCE,
    Side,
    instructions,
)

JOINTS = 6
HOME = (0.0, -0.1, 0.2, 0.0, 1.47, 0.0)
"""Joints (rad) near which an episode starts: the hand hangs above the table, behind the blocks."""
SPREAD = 0.12
"""Each of them starts at most this far from there."""
HEIGHT = 0.02  # half of a block
NAMED = 0  # the block that the instruction names


class World:
    """The robot and two blocks. ``reset`` first; the same calls give the same numbers, to the last bit."""

    def __init__(self, side: Side):
        self.side: Side = side
        self.model = _model(side)
        self.data = mujoco.MjData(self.model)
        self._substeps = round(1 / (FREQUENCY * self.model.opt.timestep))
        self._blocks = [self.model.body(f"block_{number}").id for number in range(2)]
        self._hand = self.model.site("tip").id
        self._opening = self.model.joint("left_finger").range[1]

    def reset(self, seed: int, number: int) -> None:
        """Start episode ``number`` of ``seed``: blocks and joints are a function of these two."""
        rng = np.random.default_rng([seed, number])
        mujoco.mj_resetData(self.model, self.data)
        for block, place in enumerate(_places(rng)):
            angle = rng.uniform(0, np.pi / 2) / 2
            self.data.joint(self._free(block)).qpos = [*place, HEIGHT, np.cos(angle), 0, 0, np.sin(angle)]
        start = HOME + rng.uniform(-SPREAD, SPREAD, JOINTS)
        self.data.qpos[:JOINTS] = self.data.ctrl[:JOINTS] = start
        self.data.qpos[JOINTS : JOINTS + 2] = self.data.ctrl[JOINTS:] = self._opening
        mujoco.mj_fwdPosition(self.model, self.data)
        self.steps, self.held, self.touched_other = 0, 0, False

    @property
    def colour(self) -> str:
        """The named colour."""
        return DOMAINS[self.side].colours[NAMED]

    @property
    def instruction(self) -> str:
        """What the robot is told."""
        return str(instructions(self.colour)["instruction"])

    @property
    def qpos(self) -> NDArray[np.float64]:
        """The joints [7] as ALOHA records them: rad, then the gripper, 0 (closed) to 1 (open)."""
        opened = self.data.qpos[JOINTS : JOINTS + 2].mean() / self._opening
        return np.append(self.data.qpos[:JOINTS], opened)

    @property
    def goal(self) -> NDArray[np.float64]:
        """Where the hand shall be [3], in m."""
        return self.data.xpos[self._blocks[NAMED]] + [0, 0, HEIGHT + ABOVE]

    @property
    def hand(self) -> NDArray[np.float64]:
        """Where the middle between the fingers' tips is [3], in m."""
        return self.data.site_xpos[self._hand].copy()

    @property
    def distance(self) -> float:
        """From the hand to the goal, in m."""
        return float(np.linalg.norm(self.hand - self.goal))

    @property
    def success(self) -> bool:
        """The hand has stayed at the goal, and has not touched the other block."""
        return self.held >= HOLD and not self.touched_other

    @property
    def over(self) -> bool:
        """Nothing that follows can change the outcome."""
        return self.success or self.touched_other or self.steps >= LIMIT

    def step(self, action: NDArray[np.floating]) -> None:
        """One control step towards the target joints ``action`` [7], rad and the gripper's opening."""
        if not np.isfinite(action).all():
            raise ValueError(f"the action of step {self.steps} is not finite: {action}")
        self.data.ctrl[:JOINTS] = action[:JOINTS]
        self.data.ctrl[JOINTS:] = action[JOINTS] * self._opening
        for _ in range(self._substeps):
            mujoco.mj_step(self.model, self.data)
            self.touched_other |= self._touches(1 - NAMED)
        mujoco.mj_fwdPosition(self.model, self.data)  # mj_step leaves the places of one substep before
        self.steps += 1
        self.held = self.held + 1 if self.distance <= TOLERANCE else 0

    def _touches(self, block: int) -> bool:
        """Anything but the table has contact with the block: the robot, or a block that it pushes."""
        pairs = self.data.contact.geom
        geom, table = self.model.geom(f"block_{block}").id, self.model.geom("table").id
        return bool(((pairs == geom).any(axis=1) & (pairs != table).all(axis=1)).any())

    def _free(self, block: int) -> int:
        return int(self.model.body_jntadr[self._blocks[block]])


@cache
def _model(side: Side) -> mujoco.MjModel:
    """The robot of ``robot.xml`` where it stands on this side, and its blocks in their colours."""
    model = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("robot.xml")))
    left, turned = DOMAINS[side].mount
    robot = model.body("robot")
    robot.pos[:] = 0, left, 0
    robot.quat[:] = np.cos(turned / 2), 0, 0, np.sin(turned / 2)
    for number, colour in enumerate(DOMAINS[side].colours):
        model.geom(f"block_{number}").rgba[:3] = COLOURS[colour]
    return model


def _places(rng: np.random.Generator) -> NDArray[np.float64]:
    """Places of the two blocks [2, 2], far enough apart."""
    low, high = np.transpose(REGION)
    while True:
        places = rng.uniform(low, high, (2, 2))
        if np.linalg.norm(places[0] - places[1]) >= APART:
            return places
