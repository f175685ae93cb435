"""A scripted expert: it knows where the blocks are, and brings the hand to the named one in one smooth motion."""

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.simulation.rollout import Observation, Policy
from ablation.systems.rdt.simulation.task import FREQUENCY, Side
from ablation.systems.rdt.simulation.world import HOME, JOINTS, World

BENDS = [0, 1, 2, 4]
"""Waist, shoulder, elbow and wrist angle: enough to reach a point from above. The two rolls stay 0 as at HOME, so there is one
answer."""
DOWN = np.array([0.0, 0.0, -1.0])
DAMPING = 1e-2
SPEED = 0.6
"""Mean speed of the joint that has the longest way, in rad/s."""
SHORTEST = 20
"""Fewest steps of the motion."""


def plan(world: World) -> NDArray[np.float64]:
    """Target joints of the steps to come [T, 7], in ALOHA's units; the last of them holds the hand at its goal.

    All joints move in a straight line with the least jerk (Flash and Hogan 1985) while the gripper closes.
    """
    start, end = world.data.qpos[:JOINTS], reach(world, world.goal)
    steps = max(SHORTEST, round(np.abs(end - start).max() / SPEED * FREQUENCY))
    time = np.arange(1, steps + 1)[:, None] / steps
    done = 10 * time**3 - 15 * time**4 + 6 * time**5
    return np.hstack([start + done * (end - start), 1 - done])


def reach(world: World, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joints [6] that bring the hand to ``point`` [3], pointing down: damped least squares on the Jacobian, from HOME."""
    model, data = world.model, mujoco.MjData(world.model)
    hand = model.site("tip").id
    low, high = model.jnt_range[BENDS].T
    data.qpos[:JOINTS] = HOME
    moving, turning = np.empty((3, model.nv)), np.empty((3, model.nv))
    for _ in range(100):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        pointing = data.site_xmat[hand].reshape(3, 3)[:, 0]
        error = np.concatenate([point - data.site_xpos[hand], np.cross(pointing, DOWN)[:2]])  # turned about itself as it likes
        if np.abs(error).max() < 1e-6:
            return data.qpos[:JOINTS].copy()
        mujoco.mj_jacSite(model, data, moving, turning, hand)
        jacobian = np.vstack([moving, turning[:2]])[:, BENDS]
        change = np.linalg.solve(jacobian.T @ jacobian + DAMPING**2 * np.eye(len(BENDS)), jacobian.T @ error)
        data.qpos[BENDS] = np.clip(data.qpos[BENDS] + change, low, high)
    raise ValueError(f"the hand cannot reach {point.round(3).tolist()} from above")


def expert(side: Side, seed: int, horizon: int) -> Policy:
    """The expert as a policy of rollouts of ``seed``: it looks up what it knows by an episode's number."""
    plans: dict[int, NDArray[np.float64]] = {}

    def planned(number: int) -> NDArray[np.float64]:
        if number not in plans:
            world = World(side)
            world.reset(seed, number)
            plans[number] = plan(world)
        return plans[number]

    def policy(observations: Sequence[Observation]) -> NDArray[np.float64]:
        steps = np.arange(horizon)
        return np.stack([(p := planned(o.number))[np.minimum(o.step + steps, len(p) - 1)] for o in observations])

    return policy
