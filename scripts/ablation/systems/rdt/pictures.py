"""Predicted actions beside the recorded ones."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ablation.systems.rdt.evaluation import Predicted

SHOWN = 4  # samples


def save_actions(path: Path, predicted: Predicted) -> None:
    """A row for each joint, a column for each of a few samples: recorded (grey) and predicted, over the steps to come."""
    joints = predicted.mask.nonzero().flatten().tolist()
    which = np.linspace(0, len(predicted.rows) - 1, min(SHOWN, len(predicted.rows))).round().astype(int)
    figure = Figure(figsize=(2.4 * len(which), 1.1 * len(joints)), layout="constrained")
    axes = figure.subplots(len(joints), len(which), squeeze=False, sharex=True, sharey="row")
    for column, sample in enumerate(which):
        axes[0, column].set_title(predicted.rows[sample]["item"], fontsize=7, parse_math=False)
        for row, slot in enumerate(joints):
            axes[row, column].plot(predicted.recorded[sample, :, slot], color="0.6", linewidth=3)
            axes[row, column].plot(predicted.actions[sample, :, slot], color="C0")
            axes[row, 0].set_ylabel(f"slot {slot}", fontsize=7)
    figure.savefig(path, dpi=80)
