"""Episodes become samples step by step, bad ones are named, and chance is a pure function of (seed, epoch, index)."""

import logging
from collections import Counter

import h5py
import numpy as np
import pytest
import torch
from episodes import TEXTS, jpeg, motion, pictures, write_episode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from ablation.errors import UserError
from ablation.systems.base import Draw
from ablation.systems.rdt.data import unified
from ablation.systems.rdt.data.augment import augmented, blurred, turned
from ablation.systems.rdt.data.dataset import StepDataset, fitted, noisy, paste
from ablation.systems.rdt.data.dropout import Hidden, draw_hidden, nothing_hidden
from ablation.systems.rdt.data.episode import INSTRUCTIONS, Episode, Fault, Reason, examine, first_moving
from ablation.systems.rdt.data.episodes import find_episodes
from ablation.systems.rdt.data.statistics import read_statistics, states_of, statistics_of, write_statistics
from ablation.systems.rdt.settings import CAMERAS, Augment, Data
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
    episodes = find_episodes(root, data).episodes
    return StepDataset(episodes, statistics_of(episodes), data, HORIZON, HISTORY, train)


def at(index: int, epoch: int = 0, seed: int = 0) -> Draw:
    return Draw(seed, epoch, 0, index)


# --- the unified vector ----------------------------------------------------------------------------------------------


@given(
    st.sampled_from([1, 2]).flatmap(
        lambda arms: arrays.arrays(np.float32, (3, 7 * arms), elements=st.floats(-20, 20, width=32, allow_subnormal=False))
    ),
    st.sampled_from(["state", "action"]),
)
def test_joints_come_back_from_the_unified_vector(qpos, kind):
    values, mask = unified.aloha_to_unified(qpos, kind)
    assert values.shape == (3, 128) and mask.shape == (128,) and mask.sum() == qpos.shape[1]
    assert not values[:, mask == 0].any()
    back = unified.unified_to_aloha(values, qpos.shape[1] // 7, kind)
    np.testing.assert_allclose(back, qpos, rtol=1e-6, atol=1e-30)


def test_slots_and_gripper_scales_are_those_of_the_release():
    qpos = np.arange(1, 15, dtype=np.float32)[None]
    qpos[0, [6, 13]] = 4.7908, 4.7888
    values = unified.aloha_to_unified(qpos)[0][0]
    np.testing.assert_array_equal(values[50:56], qpos[0, :6])
    np.testing.assert_array_equal(values[:6], qpos[0, 7:13])
    np.testing.assert_allclose(values[[60, 10]], 1)
    qpos[0, [6, 13]] = 11.8997, 13.9231
    np.testing.assert_allclose(unified.aloha_to_unified(qpos, "action")[0][0, [60, 10]], 1)
    slots = [slot for span in unified.SLOTS.values() for slot in span]
    assert len(set(slots)) == len(slots) and max(slots) < unified.SIZE


def test_a_single_arm_is_the_right_one():
    assert np.flatnonzero(unified.aloha_to_unified(np.ones((1, 7)))[1]).tolist() == [0, 1, 2, 3, 4, 5, 10]
    with pytest.raises(ValueError, match="8 joints"):
        unified.aloha_to_unified(np.ones((1, 8)))


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["files", "padded", "strings", "raw"])
def test_images_are_read_however_they_are_stored(tmp_path, stored):
    write_episode(tmp_path / "a.hdf5", steps=12, stored=stored)
    images = dataset(tmp_path)[at(3)]["images"]
    for number in range(3):
        seen = images[1, number, :, 8, 8].numpy().astype(int)
        np.testing.assert_allclose(seen, pictures(12, number)[3 + 3, 0, 0], atol=3)  # the first step in use is 3


def test_colours_of_plain_jpeg_files_are_read_as_they_are(tmp_path):
    write_episode(tmp_path / "a.hdf5", steps=12)
    swapped = dataset(tmp_path, CALM.model_copy(update={"jpeg": "rgb"}))[at(3)]["images"][1, 0, :, 8, 8]
    assert torch.equal(swapped, dataset(tmp_path)[at(3)]["images"][1, 0, :, 8, 8].flip(0))


def test_every_step_that_is_not_still_is_a_sample(folder):
    samples = dataset(folder)
    first, second = samples.episodes
    assert (first.steps, first.first, second.steps, second.first) == (20, 3, 13, 5)  # the last still step begins the motion
    places = [samples.place(index) for index in range(len(samples))]
    assert places == [(first, step) for step in range(3, 20)] + [(second, step) for step in range(5, 13)]
    for wrong in (-1, len(samples)):
        with pytest.raises(IndexError):
            samples.place(wrong)
    for index in (0, 16, 17, 24):
        episode, step = samples.place(index)
        qpos = motion(episode.steps, episode.first + 1, 1 if episode is first else 2)[0]
        expected = unified.aloha_to_unified(qpos[step : step + 1])[0]
        np.testing.assert_allclose(samples[at(index)]["state"], expected, rtol=1e-6)


@given(st.integers(1, 10), st.integers(0, 10))
def test_still_steps_end_where_a_joint_has_moved(still, moving):
    qpos = np.zeros((still + moving, 14))
    qpos[still:, 3] = 0.011
    qpos[1:still] += 0.009
    assert first_moving(qpos, 1e-2) == (still - 1 if moving else None)


def test_the_last_action_is_repeated_past_the_end(folder):
    samples = dataset(folder)
    action = unified.aloha_to_unified(motion(20, 4, 1)[1], "action")[0]
    for index in (0, 9, 10, 16):
        step = index + 3
        expected = action[np.minimum(np.arange(step, step + HORIZON), 19)]
        np.testing.assert_allclose(samples[at(index)]["actions"], expected, rtol=1e-6)


def test_the_history_is_older_first_and_background_before_the_first_step(folder):
    samples = dataset(folder)
    assert samples[at(0)]["shown"].tolist() == [[False] * 3, [True] * 3]
    assert samples[at(17)]["shown"].tolist() == [[False] * 3, [True] * 3]  # the second episode has no past in the first
    assert (samples[at(0)]["images"][0] == 127).all()
    earlier, later = samples[at(1)], samples[at(2)]
    assert earlier["shown"].all() and torch.equal(earlier["images"][1], later["images"][0])


def test_a_camera_that_the_robot_lacks_is_background(tmp_path):
    has = ("cam_high", "cam_left_wrist")
    write_episode(tmp_path / "a.hdf5", cameras=has)
    data = CALM.model_copy(update={"cameras": has, "background": (1, 2, 3)})
    sample = dataset(tmp_path, data)[at(5)]
    assert sample["shown"].tolist() == [[True, False, True]] * 2
    assert sample["images"][1, CAMERAS.index("cam_right_wrist"), :, 0, 0].tolist() == [1, 2, 3]


def test_a_robot_with_one_arm(tmp_path):
    write_episode(tmp_path / "a.hdf5", joints=7)
    sample = dataset(tmp_path, CALM.model_copy(update={"arms": 1}))[at(0)]
    assert sample["mask"].sum() == 7 and not sample["state"][0, 50:].any()


def test_images_keep_their_shape_between_borders():
    image = np.full((12, 16, 3), 200, np.uint8)
    small, canvas = fitted(image, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)
    assert small.shape == (3, 6, 8)
    paste(canvas, small)
    assert (canvas[:, 1:7] == 200).all() and not canvas[:, [0, 7]].any()


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
    "no instructions": (lambda path: (path.parent / INSTRUCTIONS).unlink(), Reason.INSTRUCTION, "No such file"),
    "no JSON": (instructions("{"), Reason.INSTRUCTION, INSTRUCTIONS),
    "a list": (instructions("[]"), Reason.INSTRUCTION, "no text"),
    "one kind only": (instructions('{"instruction": "Go."}'), Reason.INSTRUCTION, "simplified_instruction"),
    "an empty kind": (instructions('{"instruction": []}'), Reason.INSTRUCTION, "no text for instruction"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_episode_is_named_and_never_used(tmp_path, caplog, damage):
    harm, reason, detail = DAMAGES[damage]
    good, bad = write_episode(tmp_path / "good/a.hdf5"), write_episode(tmp_path / "bad/b.hdf5")
    harm(bad)
    fault = examine(bad, SMALL)
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


def test_an_image_that_breaks_later_is_an_error_that_names_it(tmp_path):
    path = write_episode(tmp_path / "a.hdf5")
    edit(lambda f: f["observations/images/cam_high"].__setitem__(10, np.frombuffer(WHOLE[:99], np.uint8)))(path)
    with pytest.raises(UserError, match=r"a\.hdf5: cam_high, step 10"):
        dataset(tmp_path)[at(10 - 3)]


# --- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_steps_in_use(folder, tmp_path):
    episodes = find_episodes(folder, SMALL).episodes
    states = np.concatenate([states_of(episode) for episode in episodes])
    assert len(states) == 17 + 8
    found = statistics_of(episodes)
    expected = (states.mean(0), states.std(0), states.min(0), states.max(0))
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-12)
    write_statistics(tmp_path / "s.json", found)
    for value, wanted in zip(read_statistics(tmp_path / "s.json"), found, strict=True):
        np.testing.assert_array_equal(value, wanted)


# --- chance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [40.0, 10.0])
def test_state_noise_has_the_stated_ratio(folder, snr):
    data = CALM.model_copy(update={"noise_snr": snr, "cameras": ()})
    samples, clean = dataset(folder, data), dataset(folder, data, train=False)
    used = clean[at(4)]["mask"][0] == 1
    noise = torch.cat([samples[at(4, epoch)]["state"] - clean[at(4)]["state"] for epoch in range(2000)])
    assert not noise[:, ~used].any()
    power = (noise[:, used] / torch.from_numpy(samples.state_std)[used]).square().mean()
    assert -10 * torch.log10(power) == pytest.approx(snr, abs=0.15)  # 28,000 numbers: one standard deviation is 0.04 dB


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
    assert sample["frequency"] == 0 and samples.texts[sample["text"]] == "" and not sample["mask"].any()
    np.testing.assert_array_equal(sample["state"][0], samples.state_mean)
    assert (sample["images"] == 127).all() and not sample["shown"].any()
    assert torch.equal(sample["actions"], dataset(folder)[at(5)]["actions"])


@pytest.mark.parametrize("what", Hidden._fields)
def test_each_condition_is_hidden_alone(folder, monkeypatch, what):
    samples = dataset(folder)
    told = samples[at(5)]
    some = np.eye(2, 3, dtype=bool)
    hidden = nothing_hidden(2, 3)._replace(**{what: some if what == "images" else True})
    monkeypatch.setattr("ablation.systems.rdt.data.dataset.draw_hidden", lambda *_: hidden)
    sample = samples[at(5)]
    differs = {name for name in told if not torch.equal(told[name], sample[name])}
    assert differs == ({"images", "shown"} if what == "images" else {what})
    np.testing.assert_array_equal(sample["shown"], ~hidden.images)


def test_nothing_is_random_in_evaluation(folder):
    samples, calm = dataset(folder, SMALL, train=False), dataset(folder)
    one, other = samples[at(5)], samples[at(5, epoch=3, seed=9)]
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(one[name], calm[at(5)][name]) for name in ("state", "mask", "images", "shown", "frequency"))
    assert one["frequency"] == 25 and samples.texts[one["text"]] == TEXTS["instruction"]


def test_each_kind_of_instruction_is_drawn_a_third_of_the_time(folder):
    samples = dataset(folder, CALM.model_copy(update={"cameras": ()}))
    seen = Counter(samples.texts[samples[at(5, epoch)]["text"]] for epoch in range(1500))
    short, (simple,), long = TEXTS["instruction"], TEXTS["simplified_instruction"], TEXTS["expanded_instruction"]
    shares = [seen[short], seen[simple], seen[long[0]] + seen[long[1]]]
    assert sum(shares) == 1500 and np.abs(np.array(shares) / 1500 - 1 / 3).max() < 0.05  # one standard deviation is 0.012
    assert seen[long[0]] and seen[long[1]]


def test_a_sample_is_a_pure_function_of_seed_epoch_and_index(folder):
    data = SMALL.model_copy(update={"augment": Augment(share=1)})
    samples = dataset(folder, data)
    one = samples[at(5)]
    for again in (dataset(folder, data)[at(5)], samples[Draw(0, 0, 7, 5)]):  # whatever the batch
        assert all(torch.equal(one[name], again[name]) for name in one)
    for other in (samples[at(5, epoch=1)], samples[at(5, seed=1)]):
        assert not torch.equal(one["images"], other["images"]) and not torch.equal(one["state"], other["state"])
        assert torch.equal(one["actions"], other["actions"])


def test_what_is_random_does_not_hang_on_what_else_is(folder):
    noise = dataset(folder, CALM.model_copy(update={"noise_snr": 40.0}))
    everything = dataset(folder, CALM.model_copy(update={"noise_snr": 40.0, "augment": Augment(share=1)}))
    for index in range(5):
        assert torch.equal(noise[at(index)]["state"], everything[at(index)]["state"])
        assert torch.equal(noise[at(index)]["text"], everything[at(index)]["text"])


def test_batches_are_the_same_whatever_the_number_of_workers(folder):
    samples = dataset(folder, SMALL)
    runs = [list(loader(samples, Split(4), seed=3, start=0, stop=3, workers=workers, pin=False)) for workers in (0, 2)]
    for one, other in zip(*runs, strict=True):
        assert one["images"].shape == (4, HISTORY, 3, 3, 16, 16) and one["actions"].shape == (4, HORIZON, 128)
        assert all(torch.equal(one[name], other[name]) for name in one)


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_augmentation_changes_the_stated_share_of_images_within_range():
    image = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    changed = [augmented(np.random.default_rng(seed), Augment(), image) for seed in range(400)]
    share = np.mean([not torch.equal(image, other) for other in changed])
    assert share == pytest.approx(0.5, abs=0.1)
    assert all(other.shape == image.shape and other.min() >= 0 and other.max() <= 1 for other in changed)
    assert all(torch.equal(image, augmented(np.random.default_rng(seed), Augment(share=0), image)) for seed in range(20))


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
    for wrong in ({"dropout": 1.5}, {"cameras": ("cam_low",)}, {"background": (0, 0)}, {"arms": 3}):
        with pytest.raises(ValidationError):
            Data(**wrong)
