"""A policy drives the simulated robot: closed loop, many robots in lock step."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablation.systems.rdt.simulation.camera import Pictures, pictures
from ablation.systems.rdt.simulation.task import FREQUENCY, Side
from ablation.systems.rdt.simulation.world import World


class Observation(NamedTuple):
    """What a policy knows of one robot."""

    images: tuple[Pictures, ...]
    """The last steps, older first; fewer than the history at the beginning."""
    qpos: NDArray[np.float64]
    """The joints [7], as ALOHA records them."""
    instruction: str
    frequency: int
    """Control steps a second."""
    number: int
    """Of the episode."""
    step: int
    """Since its beginning. With ``number``, it tells the random numbers of a sampling policy apart, whatever the batch."""


Policy = Callable[[Sequence[Observation]], NDArray[np.floating]]
"""N observations -> the next H target joints of each robot [N, H, 7], in ALOHA's units."""


class Rollout(NamedTuple):
    """How an episode went."""

    instruction: str
    success: bool
    steps: int
    distance: float
    """From the hand to its goal at the end, in m."""
    touched_other: bool
    """The robot touched the block that was not named, which ends the episode."""
    frames: tuple[Pictures, ...]
    """All that the cameras saw, if it was to be kept."""


def rollouts(
    policy: Policy, side: Side, seed: int, numbers: Iterable[int], execute: int, history: int, frames: bool = False
) -> list[Rollout]:
    """Episodes ``numbers`` of ``seed``, driven by ``policy``, which is asked again after ``execute`` of its actions.

    All start together and are stepped together, so that the policy sees a batch; those that are over leave it.
    """
    robots = [_Robot(World(side), seed, number, history, frames) for number in numbers]
    running = robots
    while running:
        actions = policy([robot.observation() for robot in running])
        if len(actions) != len(running) or actions.shape[1] < execute:
            raise ValueError(f"actions {list(actions.shape)}, not {execute} or more for each of {len(running)} robots")
        for robot, chunk in zip(running, actions, strict=True):
            robot.execute(chunk[:execute])
        running = [robot for robot in running if not robot.world.over]
    return [robot.result() for robot in robots]


def success_rate(done: Sequence[Rollout]) -> float:
    """Share of the episodes that succeeded."""
    return float(np.mean([rollout.success for rollout in done]))


class _Robot:
    """An episode under way and what its cameras saw."""

    def __init__(self, world: World, seed: int, number: int, history: int, frames: bool):
        self.world, self.number, self.history = world, number, history
        self.world.reset(seed, number)
        self.seen = deque([pictures(world)], maxlen=None if frames else history)
        self.frames = frames

    def observation(self) -> Observation:
        world, recent = self.world, tuple(self.seen)[-self.history :]
        return Observation(recent, world.qpos, world.instruction, FREQUENCY, self.number, world.steps)

    def execute(self, chunk: NDArray[np.floating]) -> None:
        for done, action in enumerate(chunk, start=1):
            if self.world.over:
                return
            self.world.step(action)
            if self.frames or len(chunk) - done < self.history:  # the others nobody will see
                self.seen.append(pictures(self.world))

    def result(self) -> Rollout:
        world, frames = self.world, tuple(self.seen) if self.frames else ()
        return Rollout(world.instruction, world.success, world.steps, world.distance, world.touched_other, frames)
