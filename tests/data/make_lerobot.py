"""How the two small LeRobot data sets beside this file were made, by the `lerobot` package in an environment of its own.

    python3 -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install lerobot==0.4.4     # v3.0; lerobot==0.3.3 for v2.1
    /tmp/lerobot/bin/python tests/data/make_lerobot.py tests/data/lerobot-v30

A robot with one arm, three episodes of 12, 9 and 15 steps, two tasks, a camera in a video and one in pictures. Beside the data
set, expected.json has what `lerobot`'s own reader gives: states, actions, tasks, and a pixel of some frames.
"""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

try:
    from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset
except ImportError:
    from lerobot.common.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset

FPS, HEIGHT, WIDTH = 10, 64, 96
EPISODES = [(12, "Push the red block."), (9, "Lift the lid."), (15, "Push the red block.")]
JOINTS = [f"right_joint_{number}" for number in range(6)] + ["right_gripper"]
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (7,), "names": JOINTS},
    "action": {"dtype": "float32", "shape": (7,), "names": JOINTS},
    "observation.images.cam_high": {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]},
    "observation.images.cam_right_wrist": {
        "dtype": "image", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"],
    },
}  # fmt: skip


def frame(episode: int, step: int, steps: int) -> dict[str, np.ndarray]:
    """Joints that move, a gripper that opens, and pictures whose grey tells episode and step."""
    share = np.float32(step / (steps - 1))
    state = np.array([*(0.1 * np.sin(0.3 * step + np.arange(6)) + episode), share], np.float32)
    return {
        "observation.state": state,
        "action": np.array([*(state[:6] + 0.01), share], np.float32),
        "observation.images.cam_high": np.full((HEIGHT, WIDTH, 3), 20 + 60 * episode + 4 * step, np.uint8),
        "observation.images.cam_right_wrist": np.full((HEIGHT, WIDTH, 3), 200 - 60 * episode - 4 * step, np.uint8),
    }


def main(root: Path) -> None:
    """Write the data set to ``root``, and what its own reader gives to expected.json."""
    shutil.rmtree(root, ignore_errors=True)
    made = LeRobotDataset.create("ablation/small", FPS, FEATURES, root=root, use_videos=True)
    for episode, (steps, task) in enumerate(EPISODES):
        for step in range(steps):
            values = frame(episode, step, steps)
            try:
                made.add_frame({**values, "task": task})
            except (TypeError, ValueError):
                made.add_frame(values, task)
        made.save_episode()
    if hasattr(made, "finalize"):
        made.finalize()
    read = LeRobotDataset("ablation/small", root=root, video_backend="pyav")
    rows = [read[index] for index in range(len(read))]
    expected = {
        "made_by": f"lerobot {version('lerobot')}, {CODEBASE_VERSION}",
        "episode": [int(row["episode_index"]) for row in rows],
        "state": [row["observation.state"].tolist() for row in rows],
        "action": [row["action"].tolist() for row in rows],
        "task": [row["task"] for row in rows],
        **{
            key: [round(float(row[f"observation.images.{key}"][:, 30, 40].mean()) * 255, 2) for row in rows]
            for key in ("cam_high", "cam_right_wrist")
        },
    }
    (root / "expected.json").write_text(json.dumps(expected) + "\n")
    shutil.rmtree(root / "images", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
