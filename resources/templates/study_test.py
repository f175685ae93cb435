"""The study newstudy is whole at both scales, and the smallest run of its demo fits its card."""

import pytest
from conftest import ROOT

from ablation.hardware import load_card
from ablation.preflight import unsupported
from ablation.study import load_study
from ablation.sweep import expand
from ablation.vram.predict import Predictor

PATH = ROOT / "config/studies/newstudy.yaml"


@pytest.mark.parametrize("scale", ["demo", "full"])
def test_it_says_which_runs_there_are(scale):
    runs = expand(load_study(PATH, {"scale": scale}), "newstudy")
    assert len({run.id for run in runs}) == len(runs) > 0


def test_the_smallest_run_of_its_demo_fits():
    study = load_study(PATH, {"scale": "demo"})
    card = load_card(study.hardware, ROOT / "config/hardware")
    smallest = min(expand(study, "newstudy"), key=lambda run: (run.axes["gpus"], run.axes["batch"]))
    assert unsupported(smallest, card) is None
    assert Predictor([smallest], card)(smallest).verdict == "fits"
