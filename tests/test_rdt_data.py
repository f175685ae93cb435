"""Episodes become samples step by step, bad ones are named, and chance is a pure function of (seed, epoch, index)."""

import csv
import json
import logging
import os
import pickle
import re
from collections import Counter, namedtuple
from pathlib import Path

import episodes as made
import h5py
import numpy as np
import pytest
import torch
from episodes import TEXTS, jpeg, motion, pictures, seen, shown, told, write_episode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from ablation.errors import UserError
from ablation.systems.base import Draw
from ablation.systems.rdt.data import unified
from ablation.systems.rdt.data.augment import augmented, blurred, turned
from ablation.systems.rdt.data.dataset import StepDataset, noisy
from ablation.systems.rdt.data.dropout import Hidden, draw_hidden, nothing_hidden
from ablation.systems.rdt.data.episode import INSTRUCTIONS, Episode, Fault, Reason, examine, first_moving
from ablation.systems.rdt.data.episodes import LEFT_OUT, find_episodes, read_list, split, write_list
from ablation.systems.rdt.data.images import fitted, pasted
from ablation.systems.rdt.data.statistics import statistics_of
from ablation.systems.rdt.data.tokens import cache_bytes, image_file
from ablation.systems.rdt.robots import ROBOTS, VIEWS, Vector
from ablation.systems.rdt.settings import Augment, Data
from ablation.systems.rdt.slots import SLOTS
from ablation.training.order import Split, loader

SMALL = Data(min_steps=10, image_size=16)
CALM = SMALL.model_copy(update={"dropout": 0.0, "noise_snr": None, "augment": Augment(share=0)})
HORIZON, HISTORY = 8, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tasks with an episode each, of 20 and 13 steps."""
    root = tmp_path_factory.mktemp("rdt")
    write_episode(root / "cup/episode_0.hdf5", seed=1)
    write_episode(root / "plate/episode_0.hdf5", seed=2, steps=13, still=6, stored="raw")
    return root


def dataset(root, data: Data = CALM, train: bool = True) -> StepDataset:
    return made.dataset(root, data, HORIZON, HISTORY, train)


def at(index: int, epoch: int = 0, seed: int = 0) -> Draw:
    return Draw(seed, epoch, 0, index)


# --- the unified vector ----------------------------------------------------------------------------------------------


STATE, ACTION = (unified.Mapping(vector) for vector in (ROBOTS["agilex"].state, ROBOTS["agilex"].action))
BLIND = ROBOTS["agilex"].model_copy(update={"cameras": {}})


@given(
    st.sampled_from([(name, kind) for name in ROBOTS for kind in ("state", "action")]).flatmap(
        lambda which: st.tuples(
            st.just(which),
            arrays.arrays(
                np.float32,
                (3, unified.Mapping(getattr(ROBOTS[which[0]], which[1])).width),
                elements=st.floats(-20, 20, width=32, allow_subnormal=False),
            ),
        )
    )
)
def test_numbers_come_back_from_the_unified_vector(drawn):
    (name, kind), recorded = drawn
    mapping = unified.Mapping(getattr(ROBOTS[name], kind))
    values = mapping.to_unified(recorded)
    assert values.shape == (3, 128) and mapping.mask.shape == (128,) and mapping.mask.sum() == recorded.shape[1]
    assert not values[:, mapping.mask == 0].any()
    np.testing.assert_allclose(mapping.back(values), recorded, rtol=1e-6, atol=1e-30)


def test_slots_and_gripper_scales_are_those_of_the_release():
    qpos = np.arange(1, 15, dtype=np.float32)[None]
    qpos[0, [6, 13]] = 4.7908, 4.7888
    values = STATE.to_unified(qpos)[0]
    np.testing.assert_array_equal(values[50:56], qpos[0, :6])
    np.testing.assert_array_equal(values[:6], qpos[0, 7:13])
    np.testing.assert_allclose(values[[60, 10]], 1)
    qpos[0, [6, 13]] = 11.8997, 13.9231
    np.testing.assert_allclose(ACTION.to_unified(qpos)[0, [60, 10]], 1)
    slots = [slot for span in SLOTS.values() for slot in span]
    assert len(set(slots)) == len(slots) and max(slots) < unified.SIZE


def test_a_single_arm_is_the_right_one():
    mapping = unified.Mapping(ROBOTS["one_arm"].state)
    assert np.flatnonzero(mapping.mask).tolist() == [0, 1, 2, 3, 4, 5, 10]
    with pytest.raises(ValueError, match="8 numbers"):
        mapping.to_unified(np.ones((1, 8)))


def test_a_mapping_of_ones_own_puts_each_number_where_it_says():
    """A Franka in metres and an unused clock: 7 joints, a gripper from 0.08 (open) to 0, the hand's place."""
    vector = Vector(
        key="obs/all",
        slots=("-", "right_arm_joints.0-6", "right_gripper", "right_eef_position.0-2"),
        ranges={"right_gripper": (0.0, 0.08)},
    )
    mapping = unified.Mapping(vector)
    values = mapping.to_unified(np.array([[99.0, *range(1, 8), 0.04, 0.1, 0.2, 0.3]]))[0]
    np.testing.assert_allclose(values[:7], range(1, 8))
    np.testing.assert_allclose(values[[10, 30, 31, 32]], [0.5, 0.1, 0.2, 0.3], rtol=1e-6)
    assert mapping.mask.sum() == 11 and mapping.back(values[None])[0, 0] == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"slots": ("right_arm",)}, "is no part of the unified vector; there are right_arm_joints"),
        ({"slots": ("right_gripper.0-7",)}, "right_gripper has the slots 0 to 4"),
        ({"slots": ("right_gripper", "right_gripper.0")}, "two recorded numbers go into right_gripper"),
        ({"ranges": {"left_gripper": (0, 1)}}, "left_gripper is none of the parts in slots"),
        ({"ranges": {"right_gripper": (2, 2)}}, "reads 2 both for 0 and for 1"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        Vector(**{"key": "action", "slots": ("right_gripper",), **wrong})


# --- the values that result ------------------------------------------------------------------------------------------


def with_grippers(root, robot, closed_open: dict[str, tuple[float, float]], noise: float = 0.0):
    """Three episodes whose grippers go from closed to open, as a recorder of these readings writes them."""
    arms = len(ROBOTS[robot].state.slots) // 2
    for number in range(3):
        path = write_episode(root / f"{number}.hdf5", seed=number, joints=7 * arms)
        with h5py.File(path, "a") as file:
            for name, (closed, opened) in closed_open.items():
                values, steps = file[name][:], len(file[name])
                share = np.linspace(0, 1, steps)[:, None] + noise * np.sin(np.arange(steps))[:, None]
                values[:, 6::7] = closed + share * (opened - closed)
                file[name][:] = values
    return root


READ = {  # what each recorder reads of a gripper, closed and open: states, actions
    "agilex": {"observations/qpos": (0.0, 4.79), "action": (0.0, 11.9)},
    "aloha": {"observations/qpos": (0.0, 1.0), "action": (-0.05, 1.1)},
    "one_arm": {"observations/qpos": (0.0, 1.0), "action": (0.0, 1.0)},
}


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_preset_gives_grippers_from_0_to_1(tmp_path, caplog, robot):
    with_grippers(tmp_path, robot, READ[robot])
    data = SMALL.model_copy(update={"robot": robot})
    with caplog.at_level(logging.INFO):
        episodes = find_episodes(tmp_path, data).episodes
    for index, vector in enumerate((data.mapping.state, data.mapping.action)):
        slots = [
            slot for part in ("left_gripper", "right_gripper") for slot in SLOTS[part] if unified.Mapping(vector).mask[slot]
        ]
        low = min(episode.ranges[index].low[slots].min() for episode in episodes)
        high = max(episode.ranges[index].high[slots].max() for episode in episodes)
        assert -0.06 < low < 0.01 and 0.8 < high < 1.11
    assert "state of right_gripper: 0 to 1" in caplog.text and "action of right_arm_joints: " in caplog.text


WRONG_ROBOT = {
    "ALOHA's as AgileX's": ("agilex", READ["aloha"], "which is 0 to 1 already, and would be divided: set data.robot: aloha"),
    "AgileX's as ALOHA's": ("aloha", READ["agilex"], "not from 0 (closed) to 1 (open)"),
    "percent": ("one_arm", {"observations/qpos": (0.0, 100.0), "action": (0.0, 100.0)}, "not from 0 (closed) to 1 (open)"),
}


@pytest.mark.parametrize(("robot", "read", "words"), WRONG_ROBOT.values(), ids=WRONG_ROBOT)
def test_grippers_of_another_robot_are_refused_with_numbers_and_remedy(tmp_path, robot, read, words):
    """Closed, half and open became 0, 0.1 and 0.2, without a word."""
    with_grippers(tmp_path, robot, read)
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        find_episodes(tmp_path, SMALL.model_copy(update={"robot": robot}))
    assert f"data.robot: {robot} does not fit" in str(refused.value) and "gripper" in str(refused.value)


def test_a_gripper_in_metres_is_told(tmp_path, caplog):
    with_grippers(tmp_path, "one_arm", {"observations/qpos": (0.0, 0.07), "action": (0.0, 0.07)})
    find_episodes(tmp_path, SMALL.model_copy(update={"robot": "one_arm"}))
    assert "state: right_gripper is never more than 7 % open; is its range another?" in caplog.text


def test_joints_in_degrees_are_refused(tmp_path):
    path = write_episode(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["observations/qpos"][5, 0] = 90
    with pytest.raises(UserError, match="left_arm_joints reach 90; they are in rad: are these degrees"):
        find_episodes(tmp_path, SMALL)


# --- what it is told -------------------------------------------------------------------------------------------------


def test_an_episode_s_own_instruction_comes_before_its_folder_s(tmp_path):
    """In the file, as an attribute or a dataset; in NAME.json beside it; else the folder's."""
    for number in range(5):
        write_episode(tmp_path / f"{number}.hdf5", seed=number)
    with h5py.File(tmp_path / "0.hdf5", "a") as file:
        file.attrs["language_instruction"] = "Öffne die Tür."
    with h5py.File(tmp_path / "1.hdf5", "a") as file:
        file["task"] = "Close the door."
    (tmp_path / "2.json").write_text(json.dumps("Lift the lid."), encoding="utf-8")
    (tmp_path / "3.json").write_text(
        json.dumps({"instruction": "Wipe.", "expanded_instruction": ["Wipe the table."]}), encoding="utf-8"
    )
    found = find_episodes(tmp_path, SMALL).episodes
    assert [episode.instruction for episode in found] == [
        "Öffne die Tür.", "Close the door.", "Lift the lid.", "Wipe.", TEXTS["instruction"],
    ]  # fmt: skip
    assert found[3].instructions == (("Wipe.",), ("Wipe the table.",)) and len(found[4].instructions) == 3
    write_list(find_episodes(tmp_path, SMALL), tmp_path, tmp_path / "out") if (tmp_path / "out").mkdir() is None else None
    assert [episode.instructions for episode in read_list(tmp_path / "out")] == [episode.instructions for episode in found]


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["files", "padded", "strings", "raw"])
def test_images_are_read_however_they_are_stored(tmp_path, stored):
    write_episode(tmp_path / "a.hdf5", steps=12, stored=stored)
    images = seen(dataset(tmp_path)[at(3)], CALM)
    for number in range(3):
        colour = images[1, number, :, 8, 8].numpy().astype(int)
        np.testing.assert_allclose(colour, pictures(12, number)[3 + 3, 0, 0], atol=3)  # the first step in use is 3


def test_colours_of_plain_jpeg_files_are_read_as_they_are(tmp_path):
    write_episode(tmp_path / "a.hdf5", steps=12)
    swapped = seen(dataset(tmp_path, CALM.model_copy(update={"jpeg": "rgb"}))[at(3)], CALM)[1, 0, :, 8, 8]
    assert torch.equal(swapped, seen(dataset(tmp_path)[at(3)], CALM)[1, 0, :, 8, 8].flip(0))


def test_every_step_that_is_not_still_is_a_sample(folder):
    samples = dataset(folder)
    first, second = samples.episodes
    assert (first.steps, first.first, second.steps, second.first) == (20, 3, 13, 5)  # the last still step begins the motion
    places = [samples.place(index) for index in range(len(samples))]
    assert places == [(0, step) for step in range(17)] + [(1, step) for step in range(8)]
    for wrong in (-1, len(samples)):
        with pytest.raises(IndexError):
            samples.place(wrong)
    for index in (0, 16, 17, 24):
        number, step = samples.place(index)
        episode = samples.episodes[number]
        qpos = motion(episode.steps, episode.first + 1, number + 1)[0][episode.first :]
        expected = STATE.to_unified(qpos[step : step + 1])
        np.testing.assert_allclose(samples[at(index)]["state"], expected, rtol=1e-6)


@given(st.integers(1, 10), st.integers(0, 10))
def test_still_steps_end_where_a_joint_has_moved(still, moving):
    qpos = np.zeros((still + moving, 14))
    qpos[still:, 3] = 0.011
    qpos[1:still] += 0.009
    assert first_moving(qpos, 1e-2) == (still - 1 if moving else None)


def test_the_last_action_is_repeated_past_the_end(folder):
    samples = dataset(folder)
    action = ACTION.to_unified(motion(20, 4, 1)[1])
    for index in (0, 9, 10, 16):
        step = index + 3
        expected = action[np.minimum(np.arange(step, step + HORIZON), 19)]
        np.testing.assert_allclose(samples[at(index)]["actions"], expected, rtol=1e-6)


def test_the_history_is_older_first_and_background_before_the_first_step(folder):
    samples = dataset(folder)
    assert shown(samples[at(0)], CALM).tolist() == [[False] * 3, [True] * 3]
    assert shown(samples[at(17)], CALM).tolist() == [[False] * 3, [True] * 3]  # the second episode has no past in the first
    earlier, later = samples[at(1)], samples[at(2)]
    assert shown(earlier, CALM).all() and torch.equal(seen(earlier, CALM)[1], seen(later, CALM)[0])


def test_a_camera_that_the_robot_lacks_is_background(tmp_path):
    has = ("exterior", "left_wrist")
    write_episode(tmp_path / "a.hdf5", views=has)
    robot = ROBOTS["agilex"].model_copy(update={"cameras": {view: ROBOTS["agilex"].cameras[view] for view in has}})
    data = CALM.model_copy(update={"robot": robot, "background": (1, 2, 3)})
    sample = dataset(tmp_path, data)[at(5)]
    assert shown(sample, data).tolist() == [[True, False, True]] * 2
    assert seen(sample, data)[1, VIEWS.index("right_wrist"), :, 0, 0].tolist() == [1, 2, 3]


def test_a_robot_with_one_arm(tmp_path):
    with_grippers(tmp_path, "one_arm", READ["one_arm"])
    sample = dataset(tmp_path, CALM.model_copy(update={"robot": "one_arm"}))[at(0)]
    assert sample["mask"].sum() == 7 and not sample["state"][0, 50:].any()


def test_images_keep_their_shape_between_borders():
    image = np.full((12, 16, 3), 200, np.uint8)
    small = fitted(image, 8)
    assert small.shape == (3, 6, 8)
    square = pasted(small, 8, (1, 2, 3))
    assert (square[:, 1:7] == 200).all() and square[:, 0, 5].tolist() == square[:, 7, 0].tolist() == [1, 2, 3]


# --- bad episodes ----------------------------------------------------------------------------------------------------


def edit(change):
    """A damage done to the open file."""

    def damage(path):
        with h5py.File(path, "a") as file:
            change(file)

    return damage


def replace(file, name, values):
    del file[name]
    file[name] = values


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def break_image(file, content):
    file["observations/images/cam_left_wrist"][0] = np.frombuffer(content, np.uint8)


def instructions(text):
    return lambda path: (path.parent / INSTRUCTIONS).write_text(text)


WHOLE = jpeg(pictures(1, 0)[0])
DAMAGES = {
    "cut off": (cut_off, Reason.UNREADABLE, "truncated"),
    "empty file": (lambda path: path.write_bytes(b""), Reason.UNREADABLE, ""),
    "no HDF5": (lambda path: path.write_bytes(b"x" * 5000), Reason.UNREADABLE, "signature"),
    "no qpos": (edit(lambda f: f.pop("observations/qpos")), Reason.MISSING, "/observations/qpos"),
    "no action": (edit(lambda f: f.pop("action")), Reason.MISSING, "/action"),
    "a group for action": (edit(lambda f: (f.pop("action"), f.create_group("action"))), Reason.MISSING, "/action"),
    "no camera": (edit(lambda f: f.pop("observations/images/cam_high")), Reason.MISSING, "cam_high"),
    "13 joints": (edit(lambda f: replace(f, "observations/qpos", np.zeros((20, 13)))), Reason.SHAPE, "[20, 13]"),
    "text as action": (edit(lambda f: replace(f, "action", np.full((20, 14), b"x"))), Reason.SHAPE, "/action"),
    "float images": (
        edit(lambda f: replace(f, "observations/images/cam_high", np.zeros((20, 4, 4, 3)))), Reason.SHAPE, "cam_high"
    ),
    "fewer actions": (edit(lambda f: replace(f, "action", np.zeros((19, 14)))), Reason.LENGTHS, "/action 19"),
    "fewer images": (
        edit(lambda f: replace(f, "observations/images/cam_high", np.zeros((18, 4, 4, 3), np.uint8))), Reason.LENGTHS, "18"
    ),
    "NaN": (edit(lambda f: f["observations/qpos"].__setitem__((7, 3), np.nan)), Reason.NOT_FINITE, "qpos at step 7, 1 "),
    "infinity": (edit(lambda f: f["action"].__setitem__((2, 0), np.inf)), Reason.NOT_FINITE, "/action at step 2"),
    "no image": (edit(lambda f: break_image(f, b"")), Reason.IMAGE, "cam_left_wrist"),
    "no JPEG": (edit(lambda f: break_image(f, b"nonsense")), Reason.IMAGE, "cam_left_wrist"),
    "half a JPEG": (edit(lambda f: break_image(f, WHOLE[: len(WHOLE) // 2])), Reason.IMAGE, "cam_left_wrist"),
    "no motion": (edit(lambda f: replace(f, "observations/qpos", np.ones((20, 14)))), Reason.STILL, "20 steps"),
    "short": (lambda path: write_episode(path, steps=9), Reason.SHORT, "9 steps, fewer than 10"),
    "no instructions": (lambda path: (path.parent / INSTRUCTIONS).unlink(), Reason.INSTRUCTION, "no such file"),
    "no JSON": (instructions("{"), Reason.INSTRUCTION, INSTRUCTIONS),
    "a list": (instructions("[]"), Reason.INSTRUCTION, "no text"),
    "no original": (instructions('{"expanded_instruction": "Go there."}'), Reason.INSTRUCTION, "no text for instruction"),
    "an empty other kind": (instructions('{"instruction": "Go.", "expanded_instruction": ""}'), Reason.INSTRUCTION, "expanded"),
    "an empty kind": (instructions('{"instruction": []}'), Reason.INSTRUCTION, "no text for instruction"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_episode_is_named_and_never_used(tmp_path, caplog, damage):
    harm, reason, detail = DAMAGES[damage]
    good, bad = write_episode(tmp_path / "good/a.hdf5"), write_episode(tmp_path / "bad/b.hdf5")
    harm(bad)
    fault = examine(tmp_path, bad, SMALL)
    assert isinstance(fault, Fault) and fault.reason == reason and detail in fault.detail
    with pytest.raises(UserError) as error:
        find_episodes(tmp_path, SMALL)
    assert str(fault) in str(error.value) and str(good) not in str(error.value) and "1 of 2" in str(error.value)
    with caplog.at_level(logging.WARNING):
        found = find_episodes(tmp_path, SMALL.model_copy(update={"bad": "skip"}))
    assert [episode.path for episode in found.episodes] == [good] and found.faults == [fault]
    assert str(fault) in caplog.text


def test_all_bad_episodes_are_refused_at_once(tmp_path):
    bad = [write_episode(tmp_path / f"{i}.hdf5", steps=5 + i) for i in range(3)]
    with pytest.raises(UserError) as error:
        find_episodes(tmp_path, SMALL)
    assert all(str(path) in str(error.value) for path in bad)


def test_a_folder_without_a_usable_episode_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no \*\.hdf5 file"):
        find_episodes(tmp_path, SMALL)
    write_episode(tmp_path / "a.hdf5", steps=5)
    with pytest.raises(UserError, match="none of the 1"):
        find_episodes(tmp_path, SMALL.model_copy(update={"bad": "skip"}))


def test_whole_episodes_are_not_reported(folder, caplog):
    found = find_episodes(folder, SMALL)
    assert all(isinstance(episode, Episode) for episode in found.episodes)
    assert not found.faults and not caplog.text


def test_every_image_is_examined(tmp_path):
    path = write_episode(tmp_path / "a.hdf5")
    edit(lambda f: f["observations/images/cam_high"].__setitem__(10, np.frombuffer(WHOLE[:99], np.uint8)))(path)
    with pytest.raises(UserError, match=r"a\.hdf5: undecodable image: observations/images/cam_high, step 10"):
        find_episodes(tmp_path, SMALL)


def test_an_image_that_broke_since_is_an_error_that_names_it(tmp_path):
    path = write_episode(tmp_path / "a.hdf5")
    found = find_episodes(tmp_path, SMALL).episodes
    edit(lambda f: f["observations/images/cam_high"].__setitem__(10, np.frombuffer(WHOLE[:99], np.uint8)))(path)
    with pytest.raises(UserError, match=r"a\.hdf5: observations/images/cam_high, step 10"):
        made.cached(found, SMALL)


# --- what was found, on disk -----------------------------------------------------------------------------------------


def test_listed_episodes_are_those_found(folder, tmp_path):
    found = find_episodes(folder, SMALL)
    write_list(found, folder, tmp_path)
    assert read_list(tmp_path) == found.episodes and not (tmp_path / LEFT_OUT).exists()


def test_what_is_left_out_is_listed_with_its_reason(tmp_path):
    write_episode(tmp_path / "data/good.hdf5")
    write_episode(tmp_path / "data/short.hdf5", steps=9)
    write_list(find_episodes(tmp_path / "data", SMALL.model_copy(update={"bad": "skip"})), tmp_path / "data", tmp_path)
    assert [episode.name for episode in read_list(tmp_path)] == ["good"]
    (row,) = csv.DictReader((tmp_path / LEFT_OUT).open())
    assert row["path"].endswith("short.hdf5") and row["reason"] == "too short" and "9 steps" in row["detail"]


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: write_episode(path, seed=7, steps=21)])
def test_an_episode_that_changed_since_is_not_used(tmp_path, change):
    path = write_episode(tmp_path / "data/a.hdf5")
    write_list(find_episodes(tmp_path / "data", SMALL), tmp_path / "data", tmp_path)
    change(path)
    with pytest.raises(UserError, match=rf"1 episodes are gone or have changed: .*a\.hdf5(?s:.*)delete {tmp_path}"):
        read_list(tmp_path)


def test_an_episode_that_was_copied_is_the_same(tmp_path):
    """A time of change says nothing of the content; a byte in the middle does."""
    path = write_episode(tmp_path / "data/a.hdf5")
    write_list(found := find_episodes(tmp_path / "data", SMALL), tmp_path / "data", tmp_path)
    os.utime(path, (1, 1))
    assert read_list(tmp_path) == found.episodes
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="gone or have changed"):
        read_list(tmp_path)


@given(st.integers(2, 200), st.floats(0.01, 0.99))
def test_held_out_episodes_are_spread_and_never_trained_on(count, share):
    episodes = [Episode(str(number), Path(), 1, 0, ()) for number in range(count)]
    train, test = split(episodes, share)
    assert {e.name for e in train}.isdisjoint(e.name for e in test) and len(train) + len(test) == count
    assert len(test) == min(count - 1, max(1, round(share * count))) and train
    gaps = np.diff([int(episode.name) for episode in test])
    assert len(test) == 1 or gaps.max() - gaps.min() <= 1
    assert split(episodes, share) == (train, test)


def test_a_single_episode_cannot_be_split():
    with pytest.raises(UserError, match="at least two"):
        split([Episode("a", Path(), 1, 0, ())], 0.5)


# --- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_steps_in_use(folder):
    samples = dataset(folder)
    states = [STATE.to_unified(recorded).astype(np.float64) for recorded, _ in samples.recorded]
    assert [len(of_one) for of_one in states] == [17, 8]
    together = np.concatenate(states)
    for found in (statistics_of(states), samples.statistics):
        np.testing.assert_allclose(found.state_mean, together.mean(0), atol=1e-6)
        np.testing.assert_allclose(found.state_std, together.std(0), atol=1e-6)


# --- chance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [40.0, 10.0])
def test_state_noise_has_the_stated_ratio(folder, snr):
    data = CALM.model_copy(update={"noise_snr": snr, "robot": BLIND})
    samples, clean = dataset(folder, data), dataset(folder, data, train=False)
    used = clean[at(4)]["mask"][0] == 1
    noise = torch.cat([samples[at(4, epoch)]["state"] - clean[at(4)]["state"] for epoch in range(2000)])
    assert not noise[:, ~used].any()
    spread = STATE.to_unified(motion(20, 4, 1)[0]).std(axis=0)  # of the first episode alone, its still steps, too
    power = (noise[:, used] / torch.from_numpy(spread)[used]).square().mean()
    assert -10 * torch.log10(power) == pytest.approx(snr, abs=0.15)  # 28,000 numbers: one standard deviation is 0.04 dB


def test_spread_and_norm_are_those_of_the_release(folder):
    """data/hdf5_vla_dataset.py: np.std(qpos) and sqrt(mean(qpos ** 2)) over all steps of the episode, grippers divided."""
    samples = dataset(folder)
    for number, (steps, still, seed) in enumerate([(20, 4, 1), (13, 6, 2)]):
        qpos = motion(steps, still, seed)[0].astype(np.float64) / [*[1] * 6, 4.7908, *[1] * 6, 4.7888]
        for found, expected in ((samples.spreads, qpos.std(axis=0)), (samples.norms, np.sqrt((qpos**2).mean(axis=0)))):
            np.testing.assert_allclose(found[number][STATE.slots], expected, rtol=1e-5)


def test_a_joint_that_rests_in_an_episode_gets_no_noise_there(tmp_path):
    for number in range(2):
        path = write_episode(tmp_path / f"{number}.hdf5", seed=number)
        with h5py.File(path, "a") as file:
            if number == 0:
                file["observations/qpos"][:, 7:] = 0.25
    samples = dataset(tmp_path, CALM.model_copy(update={"noise_snr": 10.0}))
    assert np.allclose(samples[at(0)]["state"][0, :6], 0.25) and not np.allclose(
        samples[at(len(samples) - 1)]["state"][0, :6], 0.25
    )


def test_noise_without_spread_is_none():
    state = np.ones((1, 128), np.float32)
    np.testing.assert_array_equal(noisy(np.random.default_rng(0), state, np.zeros(128, np.float32), 40), state)


def test_conditions_are_hidden_as_often_as_stated_and_independently():
    drawn = [draw_hidden(np.random.default_rng(seed), 0.1, 2, 3) for seed in range(5000)]
    table = np.array([[h.frequency, h.state, h.mask, h.text, *h.images.ravel()] for h in drawn])
    assert table.shape == (5000, 10)
    assert np.abs(table.mean(axis=0) - 0.1).max() < 0.02  # one standard deviation is 0.0042
    assert np.abs(np.corrcoef(table.T) - np.eye(10)).max() < 0.07  # and 0.014


def test_hidden_conditions_are_zero_mean_background_or_empty(folder):
    samples = dataset(folder, CALM.model_copy(update={"dropout": 1.0}))
    sample = samples[at(5)]
    assert sample["frequency"] == 0 and told(sample) == "" and not sample["mask"].any()
    np.testing.assert_array_equal(sample["state"][0], samples.statistics.state_mean.astype(np.float32))
    assert (seen(sample, CALM) == 127).all()
    assert torch.equal(sample["actions"], dataset(folder)[at(5)]["actions"])


@pytest.mark.parametrize("what", Hidden._fields)
def test_each_condition_is_hidden_alone(folder, monkeypatch, what):
    samples = dataset(folder)
    everything = samples[at(5)]
    some = np.eye(2, 3, dtype=bool)
    hidden = nothing_hidden(2, 3)._replace(**{what: some if what == "images" else True})
    monkeypatch.setattr("ablation.systems.rdt.data.dataset.draw_hidden", lambda *_: hidden)
    sample = samples[at(5)]
    differs = {name for name in everything if not torch.equal(everything[name], sample[name])}
    assert differs == {"images": {"img_tokens"}, "text": {"lang_tokens", "lang_mask"}}.get(what, {what})
    np.testing.assert_array_equal(shown(sample, CALM), ~hidden.images)


def test_nothing_is_random_in_evaluation(folder):
    samples, calm = dataset(folder, SMALL, train=False), dataset(folder)
    one, other = samples[at(5)], samples[at(5, epoch=3, seed=9)]
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(one[name], calm[at(5)][name]) for name in ("state", "mask", "img_tokens", "frequency"))
    assert one["frequency"] == 25 and told(one) == TEXTS["instruction"]


def test_each_kind_of_instruction_is_drawn_a_third_of_the_time(folder):
    samples = dataset(folder, CALM.model_copy(update={"robot": BLIND}))
    heard = Counter(told(samples[at(5, epoch)]) for epoch in range(1500))
    short, (simple,), long = TEXTS["instruction"], TEXTS["simplified_instruction"], TEXTS["expanded_instruction"]
    shares = [heard[short], heard[simple], heard[long[0]] + heard[long[1]]]
    assert sum(shares) == 1500 and np.abs(np.array(shares) / 1500 - 1 / 3).max() < 0.05  # one standard deviation is 0.012
    assert heard[long[0]] and heard[long[1]]


def test_noise_and_diffusion_steps_belong_to_the_sample(folder):
    samples = dataset(folder, CALM.model_copy(update={"robot": BLIND}))
    drawn = [samples[at(5, epoch)] for epoch in range(2000)]
    noise = torch.stack([sample["noise"] for sample in drawn])
    assert noise.shape[1:] == (HORIZON, 128) and abs(noise.mean()) < 0.005 and abs(noise.std() - 1) < 0.005
    steps = np.array([sample["diffusion"] for sample in drawn])
    assert steps.min() < 5 and 995 <= steps.max() < 1000 and abs(steps.mean() - 499.5) < 26  # four standard deviations


def test_a_sample_is_a_pure_function_of_seed_epoch_and_index(folder):
    data = SMALL.model_copy(update={"augment": Augment(share=1)})
    samples = dataset(folder, data)
    one = samples[at(5)]
    for again in (dataset(folder, data)[at(5)], samples[Draw(0, 0, 7, 5)]):  # whatever the batch
        assert all(torch.equal(one[name], again[name]) for name in one)
    for other in (samples[at(5, epoch=1)], samples[at(5, seed=1)]):
        assert not torch.equal(one["noise"], other["noise"]) and not torch.equal(one["state"], other["state"])
        assert torch.equal(one["actions"], other["actions"])


def test_what_is_random_does_not_hang_on_what_else_is(folder):
    noise = dataset(folder, CALM.model_copy(update={"noise_snr": 40.0}))
    everything = dataset(folder, CALM.model_copy(update={"noise_snr": 40.0, "augment": Augment(share=1)}))
    for index in range(5):
        assert torch.equal(noise[at(index)]["state"], everything[at(index)]["state"])
        assert torch.equal(noise[at(index)]["lang_tokens"], everything[at(index)]["lang_tokens"])
        assert torch.equal(noise[at(index)]["noise"], everything[at(index)]["noise"])


def test_batches_are_the_same_whatever_the_number_of_workers(folder):
    samples = dataset(folder, SMALL)
    runs = [list(loader(samples, Split(4), seed=3, start=0, stop=3, workers=workers, pin=False)) for workers in (0, 2)]
    for one, other in zip(*runs, strict=True):
        assert one["img_tokens"].shape == (4, HISTORY * 3 * 256, 3) and one["actions"].shape == (4, HORIZON, 128)
        assert all(torch.equal(one[name], other[name]) for name in one)


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_augmentation_changes_an_image_within_range():
    image = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    changed = [augmented(np.random.default_rng(seed), Augment(), image) for seed in range(100)]
    assert all(not torch.equal(image, other) for other in changed)
    assert all(other.shape == image.shape and other.min() >= 0 and other.max() <= 1 for other in changed)


def test_the_stated_share_of_images_is_a_changed_version(folder):
    data = CALM.model_copy(update={"augment": Augment(share=0.3, versions=2)})
    samples, plain = dataset(folder, data), dataset(folder)
    found = Counter()
    for epoch in range(300):
        images = seen(samples[at(5, epoch)], data)
        found.update(tuple(image.flatten().tolist()) for image in images.flatten(0, 1))
    original = {tuple(image.flatten().tolist()) for image in seen(plain[at(5)], CALM).flatten(0, 1)}
    assert len(original) == 6 and len(found) == 6 * 3
    changed = sum(count for image, count in found.items() if image not in original) / 1800
    assert changed == pytest.approx(0.3, abs=0.04)  # four standard deviations
    assert (dataset(folder, data, train=False)[at(5)]["img_tokens"] == plain[at(5)]["img_tokens"]).all()


# --- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache_takes_the_disk_that_was_foretold(folder):
    data = SMALL.model_copy(update={"augment": Augment(versions=2)})
    found = find_episodes(folder, data).episodes
    cache = made.cached(found, data).images._folder
    files = [cache / image_file(episode) for episode in found]
    foretold = cache_bytes(17 + 8, data, patches=16 * 16, dim=3)
    assert foretold == (17 + 8) * 3 * 3 * 256 * 3 * 2
    assert 0 < sum(file.stat().st_size for file in files) - foretold < 200 * len(files)  # and a header


def test_a_cache_that_the_disk_has_no_room_for_is_refused(folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    with pytest.raises(UserError, match=r"need 0\.0 GiB, and 0\.0 GiB are free(?s:.*)augment"):
        made.cached(find_episodes(folder, SMALL).episodes, SMALL)


def test_the_cache_crosses_into_another_process_without_what_it_read(folder):
    tokens = made.cached(find_episodes(folder, SMALL).episodes, SMALL)
    episode = find_episodes(folder, SMALL).episodes[0]
    read = tokens.images(episode, 3, 1, 0)
    sent = pickle.dumps(tokens.images)
    assert len(sent) < 20_000 and torch.equal(pickle.loads(sent)(episode, 3, 1, 0), read)


def test_a_text_that_is_too_long_or_unknown_is_an_error(folder):
    found = find_episodes(folder, SMALL).episodes
    with pytest.raises(UserError, match=r"data\.text_length = 20 is too short for an instruction of \d+ tokens: 'Take"):
        made.cached(found, SMALL, length=20)
    with pytest.raises(UserError, match="'Sing' was not embedded"):
        made.cached(found, SMALL).text("Sing")


def test_blur_keeps_the_mean_and_a_turned_hue_the_luma():
    image = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(blurred(torch.full((3, 9, 9), 0.4), 2.5), torch.tensor(0.4))
    assert blurred(image, 2.0).std() < 0.5 * image.std() and torch.equal(blurred(image, 0.0), image)
    luma = torch.tensor([0.299, 0.587, 0.114])
    turn = turned(image, 0.3)
    assert torch.allclose(torch.einsum("c,chw->hw", luma, turn), torch.einsum("c,chw->hw", luma, image), atol=1e-5)
    assert not torch.allclose(turn, image, atol=0.05)
    assert torch.allclose(turned(image, 1.0), image, atol=1e-5)


def test_settings_refuse_what_cannot_be():
    for wrong in ({"dropout": 1.5}, {"robot": {"cameras": {"low": "cam_low"}}}, {"background": (0, 0)}, {"robot": "spot"}):
        with pytest.raises(ValidationError):
            Data(**wrong)
