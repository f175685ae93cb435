"""LeRobot data sets are read as `lerobot` reads them; what is missing, damaged or of another version is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablation.errors import UserError
from ablation.systems.rdt.data.episode import Reason, recording
from ablation.systems.rdt.data.episodes import count_steps, find_episodes, read_list, write_list
from ablation.systems.rdt.data.lerobot import data_set
from ablation.systems.rdt.robots import ROBOTS
from ablation.systems.rdt.settings import Data

HERE = Path(__file__).parent / "data"
SETS = {"v2.1": HERE / "lerobot-v21", "v3.0": HERE / "lerobot-v30"}
SMALL = Data(source="lerobot", robot="one_arm", min_steps=5, frequency=10, still=0.001)


@pytest.fixture(params=SETS)
def root(request, tmp_path) -> Path:
    """A copy of the data set of each version, made by `lerobot` itself (tests/data/make_lerobot.py)."""
    data_set.cache_clear()
    return Path(shutil.copytree(SETS[request.param], tmp_path / "set"))


def damaged(root: Path) -> Path:
    data_set.cache_clear()
    return root


def test_values_tasks_and_pictures_are_those_of_lerobot(root):
    expected = json.loads((root / "expected.json").read_text())
    episodes = find_episodes(root, SMALL).episodes
    assert [episode.steps for episode in episodes] == [12, 9, 15]
    assert count_steps(root, SMALL) == len(expected["episode"]) == 36
    for number, episode in enumerate(episodes):
        rows = [row for row, of in enumerate(expected["episode"]) if of == number]
        with recording(episode.path, SMALL.mapping) as opened:
            for found, key in ((opened.states(), "state"), (opened.actions(), "action")):
                np.testing.assert_allclose(found, [expected[key][row] for row in rows], atol=1e-6)
            for view, key in (("exterior", "cam_high"), ("right_wrist", "cam_right_wrist")):
                pixels = [opened.image(view, step, "rgb")[30, 40].mean() for step in range(episode.steps)]
                np.testing.assert_allclose(
                    pixels, [expected[key][row] for row in rows], atol=1.5
                )  # AV1 to RGB rounds elsewhere
        assert episode.instruction == expected["task"][rows[0]] and len(episode.instructions) == 1


def test_frames_are_found_in_any_order(root):
    """Forwards, backwards, and across the ends of episodes that share a file."""
    order = [(2, 14), (0, 0), (1, 8), (0, 11), (1, 0), (2, 3), (2, 2)]
    in_turn, paths = {}, [episode.path for episode in find_episodes(root, SMALL).episodes]
    for number, path in enumerate(paths):
        with recording(path, SMALL.mapping) as opened:
            in_turn |= {(number, step): opened.image("exterior", step, "rgb") for step in range(len(opened.states()))}
    for number, step in order:
        with recording(paths[number], SMALL.mapping) as opened:
            for at in (step, max(0, step - 3), step):
                np.testing.assert_array_equal(opened.image("exterior", at, "rgb"), in_turn[number, at])


def test_a_list_is_read_back_and_a_changed_file_is_noticed(root, tmp_path):
    found, out = find_episodes(root, SMALL), tmp_path / "out"
    out.mkdir()
    write_list(found, root, out)
    assert read_list(out) == found.episodes and all(len(episode.files) == 2 for episode in found.episodes)
    (video, *_) = (root / "videos").rglob("*.mp4")
    video.write_bytes(video.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="episodes are gone or have changed"):
        read_list(out)


def changed_info(root: Path, **values) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def of_depth(root: Path) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["observation.images.cam_high"]["info"] = {"video.is_depth_map": True}
    changed_info(root, features=features)


REFUSED = {
    "an older version": (lambda root: changed_info(root, codebase_version="v2.0"), r"'v2\.0' is not read; v2\.1 and v3\.0"),
    "another frequency": (lambda root: changed_info(root, fps=30), r"recorded at 30 steps a second; set data\.frequency: 30"),
    "depth": (of_depth, r"cam_high is a depth map"),
    "no info": (lambda root: (root / "meta/info.json").unlink(), r"info\.json: there is no such file"),
    "a template of both": (lambda root: changed_info(root, data_path="{episode_index}{chunk_index}"), "names no file"),
    "a template that asks for more": (lambda root: changed_info(root, video_path="{video_key.__class__}"), "names no file"),
    "a template above": (lambda root: changed_info(root, video_path="../{video_key}"), "leads out"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_a_data_set_that_does_not_fit_is_refused(root, change, words):
    change(root)
    with pytest.raises(UserError, match=words):
        find_episodes(damaged(root), SMALL)


def test_a_camera_that_is_not_there_is_refused_with_those_that_are(root):
    robot = SMALL.mapping.model_copy(update={"cameras": {"exterior": "observation.images.front"}})
    with pytest.raises(
        UserError, match=r"no feature observation\.images\.front, which data\.robot names; there are .*cam_high"
    ):
        find_episodes(root, SMALL.model_copy(update={"robot": robot}))


def test_features_that_the_episodes_do_not_have_are_refused(root):
    features = json.loads((root / "meta/info.json").read_text())["features"]
    changed_info(root, features={**features, "observation.images.front": features["observation.images.cam_high"]})
    robot = SMALL.mapping.model_copy(update={"cameras": {"exterior": "observation.images.front"}})
    with pytest.raises(UserError, match=r"does not fit info\.json|no such file"):
        find_episodes(damaged(root), SMALL.model_copy(update={"robot": robot}))


def test_a_robot_of_other_width_is_refused_with_the_names_that_there_are(root):
    with pytest.raises(
        UserError, match=r"observation\.state has the shape \[7\], data\.robot's mapping 14 numbers: .*right_gripper"
    ):
        find_episodes(root, SMALL.model_copy(update={"robot": "aloha"}))


def first_of(root: Path, folder: str, suffix: str) -> Path:
    return sorted((root / folder).rglob(f"*{suffix}"))[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def two_tasks(root: Path) -> None:
    path = first_of(root, "data", ".parquet")
    table = pq.read_table(path)
    column = table.column_names.index("task_index")
    values = table.column("task_index").to_pylist()
    values[3] = 1 - values[3]
    pq.write_table(table.set_column(column, "task_index", pa.array(values)), path)


def one_row_less(root: Path) -> None:
    path = first_of(root, "data", ".parquet")
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


BAD = {
    "a video that is cut off": (lambda root: cut(first_of(root, "videos", ".mp4")), Reason.IMAGE, "cam_high"),
    "a video that is gone": (lambda root: first_of(root, "videos", ".mp4").unlink(), Reason.IMAGE, "no such file"),
    "a table that is cut off": (lambda root: cut(first_of(root, "data", ".parquet")), Reason.UNREADABLE, "parquet"),
    "tasks that change": (two_tasks, Reason.INSTRUCTION, "one for the whole episode"),
    "a row that is missing": (one_row_less, Reason.LENGTHS, "the table 11"),
}


@pytest.mark.parametrize(("change", "reason", "words"), BAD.values(), ids=BAD)
def test_a_bad_episode_is_named(root, change, reason, words):
    change(root)
    with pytest.raises(UserError, match="episodes are bad") as refused:
        find_episodes(damaged(root), SMALL)
    assert f"episode_000000: {reason}" in str(refused.value) and words in str(refused.value)


def test_a_video_that_ends_too_early_is_noticed(root):
    """Frames that the table promises and the video lacks."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    if info["codebase_version"] == "v3.0":
        table = first_of(root, "meta/episodes", ".parquet")
        rows = pq.read_table(table)
        name = "videos/observation.images.cam_high/from_timestamp"
        later = pa.array([value + 100 for value in rows.column(name).to_pylist()])
        pq.write_table(rows.set_column(rows.column_names.index(name), name, later), table)
    else:
        episodes = sorted((root / "videos").rglob("*.mp4"))
        shutil.copyfile(episodes[1], episodes[0])  # nine frames in place of twelve
    with pytest.raises(UserError, match=r"undecodable image: observation\.images\.cam_high, step .*ends before"):
        find_episodes(damaged(root), SMALL)


def test_presets_have_the_names_of_lerobot_s_converters():
    robot = Data(source="lerobot", robot="aloha").mapping
    assert (robot.state.key, robot.action.key) == ("observation.state", "action")
    assert robot.cameras["left_wrist"] == "observation.images.cam_left_wrist"
    assert ROBOTS["aloha"].state.key == "observations/qpos"
