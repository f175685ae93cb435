"""TensorBoard's HPARAMS tab knows the runs: read as TensorBoard reads it."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from torch.utils.tensorboard import SummaryWriter

from ablation.hparams import write_hparams
from ablation.settings import Metric

METRICS = [Metric("depth_mae", "depth MAE", "m", True, 3), Metric("delta", "δ < 1.25", "", False, 3)]
AXES = {"strategy": "A", "rank": None, "batch": 2, "seed": 0}
RECORD = {
    "outcome": "completed", "steps": 60, "final_loss": 0.25, "metrics": {"depth_mae": 0.5},
    "time": {"step_median_s": 0.125}, "memory": {"peak_allocated_gib": 0.75},
}  # fmt: skip


def read(folder):
    events = EventAccumulator(str(folder)).Reload()
    found = events.PluginTagToContent(metadata.PLUGIN_NAME)
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return {tag: metadata._parse_plugin_data_as(content, _field(tag)) for tag, content in found.items()}, scalars


def _field(tag):
    known = {metadata.EXPERIMENT_TAG: "experiment", metadata.SESSION_START_INFO_TAG: "session_start_info"}
    return known.get(tag, "session_end_info")


def test_axes_and_results_are_beside_the_curves(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("train/loss", 2.0, 1)
    write_hparams(tmp_path, "A-s0", AXES, METRICS, RECORD)
    found, scalars = read(tmp_path)
    start = found[metadata.SESSION_START_INFO_TAG].hparams
    assert {name: getattr(value, value.WhichOneof("kind")) for name, value in start.items()} == {
        "strategy": "A", "batch": 2, "seed": 0, "outcome": "completed",
    }  # fmt: skip
    assert found[metadata.SESSION_END_INFO_TAG].status == STATUS_SUCCESS
    columns = found[metadata.EXPERIMENT_TAG]
    assert [info.name for info in columns.hparam_infos] == ["strategy", "rank", "batch", "seed", "outcome"]
    assert {info.name.tag: info.display_name for info in columns.metric_infos}["metric/depth_mae"] == "depth MAE, m"
    assert scalars.pop("train/loss") == [(1, 2.0)]
    assert scalars == {
        "metric/depth_mae": [(60, 0.5)], "final_loss": [(60, 0.25)], "time.step_median_s": [(60, 0.125)],
        "memory.peak_allocated_gib": [(60, 0.75)],
    }  # fmt: skip


def test_what_did_not_complete_is_there_as_failed(tmp_path):
    write_hparams(tmp_path, "A-s0", AXES, METRICS, {"outcome": "oom", "steps": None, "metrics": {}, "memory": {}})
    found, scalars = read(tmp_path)
    assert found[metadata.SESSION_END_INFO_TAG].status == STATUS_FAILURE and not scalars
    assert found[metadata.SESSION_START_INFO_TAG].hparams["outcome"].string_value == "oom"


def test_a_new_evaluation_replaces_the_old(tmp_path):
    for value in (0.5, 0.25):
        write_hparams(tmp_path, "A-s0", AXES, METRICS, RECORD | {"metrics": {"depth_mae": value}})
    assert read(tmp_path)[1]["metric/depth_mae"] == [(60, 0.25)]
