"""The simulated robot: the same to the last bit, an expert that does the task, and no success for anyone who does not."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from episodes import dataset, pixels, seen, shown
from PIL import Image
from pretrain_rdt import render_scenes

from ablation.settings import Training
from ablation.systems.base import Draw
from ablation.systems.rdt.data.episode import recording
from ablation.systems.rdt.data.episodes import find_episodes
from ablation.systems.rdt.policy import Policy
from ablation.systems.rdt.settings import Architecture, Augment, Data, Evaluation, Model, SystemSettings
from ablation.systems.rdt.simulation import camera
from ablation.systems.rdt.simulation.expert import expert, plan, reach
from ablation.systems.rdt.simulation.record import record_episodes
from ablation.systems.rdt.simulation.rollout import rollouts, success_rate
from ablation.systems.rdt.simulation.sheet import write_sheet
from ablation.systems.rdt.simulation.task import APART, DOMAINS, FREQUENCY, HOLD, LIMIT, SIDES, TOLERANCE
from ablation.systems.rdt.simulation.world import HOME, NAMED, World

DATA = Data(robot="one_arm", min_steps=20, image_size=64, text_length=100, augment=Augment(share=0))
SEED, COUNT, HISTORY, HORIZON = 3, 6, 2, 8


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """Some demonstrations."""
    root = tmp_path_factory.mktemp("episodes")
    record_episodes(root, "home", SEED, COUNT)
    return root


def started(side="home", number=0, seed=SEED) -> World:
    world = World(side)
    world.reset(seed, number)
    return world


def drive(world: World, actions) -> None:
    for action in actions:
        world.step(action)


def go_to(world: World, point) -> np.ndarray:
    """Actions that take the closed gripper to ``point`` and keep it there."""
    return np.repeat(np.append(reach(world, point), 0)[None], 40, axis=0)


def middle(world: World, block: int) -> np.ndarray:
    return world.data.body(f"block_{block}").xpos.copy()


# --- physics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_an_episode_is_the_same_to_the_last_bit(side):
    used, fresh = started(side, number=7), World(side)
    drive(used, plan(used))
    states = []
    for world in (used, fresh):
        world.reset(SEED, 4)
        drive(world, plan(world))
        states.append(np.concatenate([world.data.qpos, world.data.qvel]))
    np.testing.assert_array_equal(*states)
    assert all((camera.picture(used, name) == camera.picture(fresh, name)).all() for name in camera.CAMERAS)


def test_episodes_differ_by_seed_and_number():
    starts = [started(seed=seed, number=number).data.qpos.copy() for seed in range(3) for number in range(3)]
    assert len(np.unique(np.round(starts, 6), axis=0)) == 9


def test_every_episode_can_be_told_apart_and_done():
    world = World("home")
    for number in range(200):
        world.reset(SEED, number)
        places = [middle(world, block) for block in range(2)]
        assert np.linalg.norm(places[0] - places[1]) >= APART > 2 * TOLERANCE and world.distance > 2 * TOLERANCE
        assert not world.touched_other and world.colour in world.instruction


def test_the_joints_go_where_they_are_told_and_are_read_in_the_units_of_aloha():
    world = started()
    target = np.array([0.3, -0.2, 0.4, 0.2, 1.2, -0.3, 0.5])
    drive(world, [target] * FREQUENCY)
    np.testing.assert_allclose(world.qpos[:6], target[:6], atol=2e-3)
    assert world.qpos[6] == pytest.approx(0.5, rel=0.01)


def test_the_blocks_are_real_and_the_table_is_too():
    world = started(number=1)  # the block lies where the arm can draw it nearer
    block = middle(world, 0)
    drive(world, go_to(world, np.add(block, (0, 0, 0.05))))
    drive(world, go_to(world, np.add(block, (0.08, 0, 0.05))))
    np.testing.assert_allclose(middle(world, 0), block, atol=1e-3)  # the hand passed above it
    drive(world, go_to(world, np.add(block, (0.08, 0, 0.01))))
    drive(world, go_to(world, np.add(block, (-0.05, 0, 0.01))))
    assert middle(world, 0)[0] < block[0] - 0.03  # pulled along
    assert middle(world, 0)[2] == pytest.approx(block[2], abs=2e-3) and world.hand[2] > 0


def test_an_action_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        started().step(np.full(7, np.nan))


# --- success ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_the_expert_succeeds(side):
    assert success_rate(rollouts(expert(side, SEED, 16), side, SEED, range(20), execute=8, history=HISTORY)) >= 0.95


def still(observations):
    return np.stack([np.repeat(np.append(o.qpos[:6], 0)[None], 8, axis=0) for o in observations])


def aimless(observations):
    draws = [np.random.default_rng([o.number, o.step]).uniform(-0.5, 0.5, (8, 7)) for o in observations]
    return np.append(HOME, 0) + np.stack(draws)


@pytest.mark.parametrize("policy", [still, aimless])
def test_no_success_without_skill(policy):
    done = rollouts(policy, "home", SEED, range(10), execute=8, history=1)
    assert success_rate(done) == 0 and all(rollout.distance > TOLERANCE for rollout in done)
    assert all(rollout.steps == LIMIT or rollout.touched_other for rollout in done)


def test_knowing_the_task_without_seeing_the_table_does_not_help():
    elsewhere = {number: plan(started(number=number + 100)) for number in range(20)}

    def blind(observations):
        return np.stack([(p := elsewhere[o.number])[np.minimum(o.step + np.arange(8), len(p) - 1)] for o in observations])

    assert success_rate(rollouts(blind, "home", SEED, range(20), execute=8, history=1)) <= 0.2


def test_the_other_block_is_no_success():
    world = started()
    drive(world, go_to(world, np.add(middle(world, 1 - NAMED), (0, 0, 0.03))))
    assert not world.touched_other and not world.success and world.distance > TOLERANCE


def test_touching_the_other_block_on_the_way_spoils_it():
    world = started()
    goal = world.goal
    drive(world, go_to(world, np.add(middle(world, 1 - NAMED), (0, 0, 0.015))))
    assert world.touched_other and world.over
    drive(world, go_to(world, [*goal[:2], 0.15]))
    drive(world, go_to(world, goal))
    assert world.distance < TOLERANCE and world.held >= HOLD and not world.success


def test_the_hand_must_stay():
    world = started()
    drive(world, plan(world))
    while world.held < HOLD - 1:
        world.step(np.append(reach(world, world.goal), 0))
    drive(world, go_to(world, np.add(world.goal, (0, 0, 0.1)))[:10])
    assert world.held == 0 and not world.success


def test_what_is_learned_at_home_fails_away():
    plans = {number: plan(started("home", number)) for number in range(20)}  # the blocks lie in the same places

    def homesick(observations):
        return np.stack([(p := plans[o.number])[np.minimum(o.step + np.arange(8), len(p) - 1)] for o in observations])

    assert success_rate(rollouts(homesick, "home", SEED, range(20), execute=8, history=1)) == 1
    assert success_rate(rollouts(homesick, "away", SEED, range(20), execute=8, history=1)) <= 0.05


def test_a_point_out_of_reach_is_an_error():
    with pytest.raises(ValueError, match=r"cannot reach \[2\.0, 0\.0, 0\.1\]"):
        reach(started(), np.array([2.0, 0.0, 0.1]))


# --- rollouts --------------------------------------------------------------------------------------------------------


def test_robots_in_lock_step_do_as_each_alone():
    together = rollouts(expert("home", SEED, 16), "home", SEED, range(4), execute=5, history=HISTORY)
    alone = [rollouts(expert("home", SEED, 16), "home", SEED, [n], execute=5, history=HISTORY)[0] for n in range(4)]
    assert together == alone and len({rollout.steps for rollout in together}) > 1


def test_the_policy_is_asked_again_after_the_stated_steps_and_only_for_those_under_way():
    asked = []

    def watched(observations):
        asked.append(observations)
        return expert("home", SEED, 16)(observations)

    done = rollouts(watched, "home", SEED, range(3), execute=5, history=HISTORY, frames=True)
    for number, rollout in enumerate(done):
        own = [o for observations in asked for o in observations if o.number == number]
        assert [o.step for o in own] == list(range(0, rollout.steps, 5)) and len(rollout.frames) == rollout.steps + 1
        assert [len(o.images) for o in own] == [1] + [HISTORY] * (len(own) - 1)
        for observation in own[1:]:
            for age, images in enumerate(observation.images):
                assert images is rollout.frames[observation.step - 1 + age]


def test_a_policy_sees_the_same_whether_the_frames_are_kept_or_not():
    seen = {}
    for frames in (True, False):

        def policy(observations, frames=frames):
            seen[frames, observations[0].step] = observations[0].images
            return expert("home", SEED, 16)(observations)

        rollouts(policy, "home", SEED, [0], execute=5, history=HISTORY, frames=frames)
    assert len(seen) > 8
    for (_, step), kept in seen.items():
        for one, other in zip(kept, seen[False, step], strict=True):
            assert all((one[name] == other[name]).all() for name in camera.CAMERAS)


def test_too_few_actions_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 4, 7\], not 5 or more for each of 2"):
        rollouts(expert("home", SEED, 4), "home", SEED, range(2), execute=5, history=1)


def test_a_sheet_shows_the_first_and_the_last_moment(tmp_path):
    rollout = rollouts(expert("home", SEED, 16), "home", SEED, [0], execute=8, history=1, frames=True)[0]
    write_sheet(tmp_path / "sheet.png", rollout, columns=3, enlarged=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    height, width = camera.HEIGHT, camera.WIDTH
    assert sheet.shape == (2 * 2 * height, 3 * 2 * width, 3)
    np.testing.assert_array_equal(sheet[: 2 * height : 2, : 2 * width : 2], rollout.frames[0]["exterior"])
    np.testing.assert_array_equal(sheet[2 * height :: 2, -2 * width :: 2], rollout.frames[-1]["right_wrist"])


# --- cameras ---------------------------------------------------------------------------------------------------------


def pixel(world: World, name: str, point) -> tuple[int, int]:
    """Row and column at which a pinhole camera shows ``point``."""
    eye = world.data.camera(camera.CAMERAS[name])
    x, y, z = eye.xmat.reshape(3, 3).T @ (point - eye.xpos)
    focal = camera.HEIGHT / 2 / np.tan(np.radians(world.model.camera(camera.CAMERAS[name]).fovy[0]) / 2)
    return int(camera.HEIGHT / 2 + focal * y / z), int(camera.WIDTH / 2 - focal * x / z)


def shown_colour(rgb) -> str:
    red, green, blue = rgb / rgb.max()
    close = {"red": (1, 0, 0), "blue": (0, 0, 1), "green": (0, 1, 0), "yellow": (1, 1, 0)}
    return min(close, key=lambda colour: np.abs(np.subtract(close[colour], (red, green, blue))).sum())


@pytest.mark.parametrize("side", SIDES)
def test_the_camera_shows_both_blocks_where_they_are(side):
    for number in range(20):
        world = started(side, number)
        seen = camera.picture(world, "exterior")
        for block, colour in enumerate(DOMAINS[side].colours):
            assert (
                shown_colour(seen[pixel(world, "exterior", np.add(middle(world, block), (0, 0, 0.02)))].astype(float)) == colour
            )


def test_the_wrist_camera_shows_the_named_block_once_the_hand_is_there():
    for number in range(10):
        world = started(number=number)
        drive(world, plan(world))
        seen = camera.picture(world, "right_wrist").reshape(-1, 3).astype(float)
        coloured = seen[seen.max(axis=1) > 3 * seen.min(axis=1)]
        assert len(coloured) > 50 and np.mean([shown_colour(rgb) == world.colour for rgb in coloured]) > 0.5


def test_the_cameras_see_the_arm_move():
    world = started()
    before = camera.pictures(world)
    drive(world, plan(world))
    after = camera.pictures(world)
    assert all((before[name] != after[name]).any(axis=-1).mean() > 0.02 for name in camera.CAMERAS)


def test_no_graphics_library_is_needed():
    """Clusters have none."""
    code = (
        "import sys\n"
        "from ablation.systems.rdt.simulation import camera, world\n"
        "robot = world.World('home')\nrobot.reset(0, 0)\ncamera.pictures(robot)\n"
        "print({name.split('.')[0] for name in sys.modules} & {'OpenGL', 'glfw', 'torch'})"
    )
    environment = {"PYTHONPATH": "scripts", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_scenes_of_many_colours_leave_the_robots_world_as_it_was():
    """What is recorded after the encoders were pretrained, in one process, shows the colours that the instructions name."""
    before = [World(side).model.geom_rgba.copy() for side in SIDES]
    render_scenes(4, 64)
    for side, colours in zip(SIDES, before, strict=True):
        np.testing.assert_array_equal(World(side).model.geom_rgba, colours)


# --- demonstrations --------------------------------------------------------------------------------------------------


def test_demonstrations_are_read_as_episodes(episodes):
    found = find_episodes(episodes, DATA)
    assert len(found.episodes) == COUNT and not found.faults
    for episode in found.episodes:
        world = started(number=int(episode.path.stem.split("_")[1]))
        assert episode.path.parent.name == world.colour and episode.instructions[0] == (world.instruction,)
        assert all(world.colour in text.lower() for kind in episode.instructions for text in kind)
        assert 20 <= episode.steps <= LIMIT and episode.first <= 3


def test_recorded_actions_repeat_the_recorded_motion(episodes):
    for path in episodes.rglob("*.hdf5"):
        world = started(number=int(path.stem.split("_")[1]))
        with recording(path, DATA.mapping) as opened:
            for step, (action, qpos) in enumerate(zip(opened.file["action"], opened.file["observations/qpos"], strict=True)):
                np.testing.assert_array_equal(world.qpos.astype(np.float32), qpos)
                for name in camera.CAMERAS if step % 10 == 0 else ():
                    error = np.abs(camera.picture(world, name).astype(float) - opened.image(name, step, "bgr"))
                    assert error.mean() < 4  # of 255, by JPEG
                world.step(action)
        assert world.success


def test_the_same_files_again(episodes, tmp_path):
    record_episodes(tmp_path, "home", SEED, COUNT)
    files = sorted(path.relative_to(episodes) for path in episodes.rglob("*.*"))
    assert len(files) == COUNT + 1 and all((episodes / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)


def test_a_policy_sees_what_the_network_was_trained_on(episodes):
    """The observation that a policy makes of a replayed episode is the sample of the recorded step."""
    samples = dataset(episodes, DATA, HORIZON, HISTORY, train=False)
    place, step = samples.place(10)
    episode, number = samples.episodes[place], int(samples.episodes[place].path.stem.split("_")[1])
    met = {}

    def replay(observations):
        met[observations[0].step] = observations[0]
        with recording(episode.path, DATA.mapping) as opened:
            return opened.actions(observations[0].step, observations[0].step + 1)[None]

    rollouts(replay, "home", SEED, [number], execute=1, history=HISTORY)
    recorded, observed = samples[Draw(0, 0, 0, 10)], observe(met[episode.first + step], samples)
    for ours, name in zip(observed, ("lang_tokens", "lang_mask", "img_tokens", "state", "mask", "frequency"), strict=True):
        if name == "img_tokens":
            apart = (seen({name: ours}, DATA).float() - seen(recorded, DATA).float()).abs()
            assert apart.mean() < 3 and not apart[:, 2].any()  # of 255, by JPEG; the arm that is not there
        else:
            torch.testing.assert_close(ours[0], recorded[name], rtol=1e-6, atol=1e-7)


def test_the_first_observation_has_no_past(episodes):
    samples, first = dataset(episodes, DATA, HORIZON, HISTORY, train=False), []

    def policy(observations):
        first.extend(observations)
        return expert("home", SEED, LIMIT)(observations)

    rollouts(policy, "home", SEED, [0], execute=LIMIT, history=HISTORY)
    tokens = {"img_tokens": observe(first[0], samples).img_tokens}
    assert shown(tokens, DATA).tolist() == [[False] * 3, [True, True, False]]


def observe(one, samples):
    """What the policy tells the network of one robot."""
    settings = SystemSettings(
        system="rdt", training=Training(steps=1), data=DATA, evaluation=Evaluation(execute=HORIZON),
        model=Model(architecture=Architecture(horizon=HORIZON)),
    )  # fmt: skip
    return Policy(None, settings, samples.tokens.text, pixels, torch.device("cpu")).observe([one])
