"""A run in TensorBoard's HPARAMS tab: its axes beside what came out, in the folder that holds its curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from torch.utils.tensorboard import SummaryWriter

from ablation.settings import Metric

COSTS = {"final_loss": "final loss", "time.step_median_s": "step, s", "memory.peak_allocated_gib": "memory, GiB"}
SUFFIX = ".hparams"  # of the event file, which a new evaluation replaces
OUTCOME = "outcome"


def write_hparams(
    folder: Path, run: str, axes: Mapping[str, Any], metrics: Sequence[Metric], record: Mapping[str, Any]
) -> None:
    """Write into ``folder``. ``record``: what ``metrics.json`` holds; a run that did not complete stands there as failed.

    All runs of a study name the same columns: TensorBoard takes them from whichever run it reads first.
    """
    for old in folder.glob(f"*{SUFFIX}"):
        old.unlink(missing_ok=True)
    names = [*(f"metric/{metric.name}" for metric in metrics), *COSTS]
    labels = [*(f"{m.label}{', ' + m.unit if m.unit else ''}" for m in metrics), *COSTS.values()]
    columns = [summary_v2.HParam(axis) for axis in (*axes, OUTCOME)]
    shown = [summary_v2.Metric(name, display_name=label) for name, label in zip(names, labels, strict=True)]
    values = {axis: value for axis, value in axes.items() if value is not None} | {OUTCOME: record["outcome"]}
    with SummaryWriter(str(folder), filename_suffix=SUFFIX) as writer:
        writer.file_writer.add_summary(summary_v2.hparams_config_pb(columns, shown))
        writer.file_writer.add_summary(summary_v2.hparams_pb(values, trial_id=run))
        writer.file_writer.add_summary(_ended(record["outcome"] == "completed"))
        for name in names:
            if (value := _number(record, name)) is not None:
                writer.add_scalar(name, value, record.get("steps") or 0)


def _number(record: Mapping[str, Any], name: str) -> float | None:
    if name.startswith("metric/"):
        return record["metrics"].get(name.removeprefix("metric/"))
    value: Any = record
    for step in name.split("."):
        value = (value or {}).get(step)
    return value


def _ended(well: bool) -> Summary:
    ended = plugin_data_pb2.SessionEndInfo(status=STATUS_SUCCESS if well else STATUS_FAILURE)
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
    return Summary(value=[Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR)])
