"""Figures show the numbers of the results, to people who print in grey and to those who see no colours."""

import json
import re
import xml.etree.ElementTree as xml

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image
from report_study import MEMORY, with_fates, write_study

from ablation.report.content import Panels
from ablation.report.figures.axis_curves import axis_curves
from ablation.report.figures.before_after import before_after
from ablation.report.figures.choice import best_cells, cell_means, known, looks
from ablation.report.figures.components import components
from ablation.report.figures.loss_curves import loss_curves
from ablation.report.figures.panels import panel_figure, panels_of
from ablation.report.figures.predicted_measured import predicted_measured
from ablation.report.figures.quality_memory import quality_memory
from ablation.report.figures.save import save, svg_element
from ablation.report.figures.style import LOOKS, OTHER, plain
from ablation.report.figures.throughput import throughput
from ablation.report.results import Results

ALL = [quality_memory, components, predicted_measured, loss_curves, axis_curves, throughput, before_after]
METRIC = "metric.depth_mae"
UNITS = {"GiB", "m", "step", "samples/s", "rank", "cell", "item", "loss", "memory"}  # the last words of labels


@pytest.fixture
def study_results(tmp_path):
    """Three seeds; one cell without memory enough, one that lost a seed to it; predictions and GPU measurements in all."""
    fates = {("B", 16): ["oom (predicted)"] * 3, ("C", 16): ["completed", "completed", "oom"]}
    return measured(with_fates(tmp_path, fates))


def measured(results):
    """With what plans predict and GPUs measure, and two items."""
    runs, rank = results.runs.copy(), results.runs["rank"].astype(float)
    seed, ran = runs["seed"].astype(float), runs["outcome"] == "completed"
    runs["activations_gib"], runs["workspace_gib"], runs["context_gib"] = rank, 0.1, 0.5
    runs["predicted_gib"], runs["predicted_reserved_gib"] = rank + 0.6, rank + 0.1
    runs["budget_gib"] = 23.64
    runs["memory.peak_reserved_gib"] = (rank * 1.05 + 0.1).where(ran)
    runs["memory.peak_allocated_gib"] = (rank + 0.01 * seed).where(ran)
    runs["time.samples_per_s"] = (10 + rank + seed).where(ran)
    runs[METRIC] = (0.5 + 0.01 * seed - 0.001 * rank).where(ran)
    others = {"item": "<hall & $x^2$>", "depth_mae": 0.7}
    items = [json.dumps([{"item": "yard", "depth_mae": value}, others]) for value in runs[METRIC]]
    runs["items"] = pd.Series(items, index=runs.index).where(ran)
    runs["items_before"] = '[{"item": "yard", "depth_mae": 1.2}, {"item": "<hall & $x^2$>", "depth_mae": 1.5}]'
    return Results(results.study, runs)


def axes_of(figure):
    return figure.draw().axes


def points(axes):
    """All points with a marker that are drawn, but those of keys."""
    lines = [line for line in axes.lines if line.get_marker() not in ("", "None", None, "_", "|") and len(line.get_xdata())]
    return [point for line in lines for point in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_the_points_of_quality_and_memory_are_the_means(study_results):
    axes, side = axes_of(quality_memory(study_results))
    cells = [cell for cell in study_results.cells if cell.estimate(METRIC)]
    expected = [(c.estimate("memory.peak_allocated_gib").mean, c.estimate(METRIC).mean) for c in cells]
    drawn = [tuple(c.lines[0].get_xydata()[0]) for c in axes.containers]
    assert np.array(sorted(drawn)) == pytest.approx(np.array(sorted(expected)))
    for container, cell in zip(axes.containers, cells, strict=True):
        low, high = container.lines[2][1].get_segments()[0][:, 1]
        assert (high - low) / 2 == pytest.approx(cell.estimate(METRIC).half_width)
    assert any(line.get_xdata()[0] == MEMORY["budget_gib"] for line in axes.lines if line.get_linestyle() == "--")
    assert [text.get_text() for text in side.texts] == ["B, rank 16\npredicted 16.60 GiB"]


def test_a_limit_far_off_is_told_and_leaves_the_points_their_room(tmp_path, demo_study):
    _, results = write_study(tmp_path, demo_study)
    (axes,) = axes_of(quality_memory(results))
    assert axes.get_xlim()[1] < 5 and any("23.14 GiB →" in text.get_text() for text in axes.texts)


def test_a_cell_that_lost_seeds_is_hollow(study_results):
    axes, _ = axes_of(quality_memory(study_results))
    hollow = [c for c in axes.containers if c.lines[0].get_markerfacecolor() == "white"]
    assert len(hollow) == 1 and "Hollow" in quality_memory(study_results).caption


def test_no_point_of_the_front_is_beaten(study_results):
    axes, _ = axes_of(quality_memory(study_results))
    (front,) = [line.get_xydata() for line in axes.lines if line.get_gid() == "front"]
    for x, y in front:
        assert not any(px <= x and py <= y and (px, py) != (x, y) for px, py in points(axes))


def test_bars_of_memory_add_up_to_the_prediction(study_results):
    (axes,) = axes_of(components(study_results))
    ends = np.max([[bar.get_x() + bar.get_width() for bar in container] for container in axes.containers], axis=0)
    assert ends == pytest.approx([cell.first("predicted_gib") for cell in study_results.cells])
    assert any(line.get_xdata()[0] == 23.64 for line in axes.lines if len(line.get_xdata()))


def test_predicted_and_measured(study_results):
    (axes,) = axes_of(predicted_measured(study_results))
    drawn = points(axes)
    assert np.array(sorted(drawn)) == pytest.approx(np.array([(r + 0.1, r * 1.05 + 0.1) for r in (4, 4, 4, 16, 16)]))
    without = Results(study_results.study, study_results.runs.drop(columns="memory.peak_reserved_gib"))
    assert predicted_measured(without) is None


def test_throughput_stands_beside_its_relation_to_the_baseline(study_results):
    (axes,) = axes_of(throughput(study_results))
    bars = [bar.get_width() for container in axes.containers for bar in getattr(container, "patches", [])]
    means = [found.mean for cell in study_results.cells if (found := cell.estimate("time.samples_per_s"))]
    assert sorted(set(bars)) == pytest.approx(sorted(set(means)))
    texts = [text.get_text() for text in axes.texts]
    assert any(text.endswith("1.00×") for text in texts) and "OOM (predicted)" in texts


def test_lines_along_an_axis_have_t_intervals(study_results):
    (axes,) = axes_of(axis_curves(study_results))
    lines = {tuple(container.lines[0].get_xdata()): container for container in axes.containers}
    (container,) = [c for c in axes.containers if c.get_label() and tuple(c.lines[0].get_xdata()) == (4, 16)][:1]
    cells = [cell for cell in study_results.cells if cell.strategy == "A"]
    assert list(container.lines[0].get_ydata()) == pytest.approx([cell.estimate(METRIC).mean for cell in cells])
    assert axes.get_xscale() == "log" and set(lines) == {(4, 16)}  # B has but one rank left, and so no line


def test_bands_of_the_loss_are_the_range_of_the_seeds(study_results):
    runs = study_results.runs.copy()
    runs["curve.loss"] = [np.array([2.0, 1.5, 1.0]) + seed for seed in runs["seed"]]
    runs["curve.step"] = [np.array([1.0, 2.0, 3.0])] * len(runs)
    (axes,) = axes_of(loss_curves(Results(study_results.study, runs)))
    line, band = axes.lines[0], axes.collections[0]
    assert list(line.get_ydata()) == pytest.approx([3.0, 2.5, 2.0])
    assert band.get_datalim(axes.transData).bounds[3] == pytest.approx(3.0)  # from 1.0 to 4.0


def test_items_before_and_after(study_results):
    (axes,) = axes_of(before_after(study_results))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["yard", "<hall & $x^2$>"]
    before = next(line for line in axes.lines if line.get_marker() == "|")
    assert list(before.get_xdata()) == [1.2, 1.5]
    best = min((cell for cell in study_results.cells if cell.strategy == "A"), key=lambda cell: cell.estimate(METRIC).mean)
    assert axes.lines[0].get_xdata()[0] == pytest.approx(best.estimate(METRIC).mean, abs=1e-5)


def test_every_axis_says_what_it_shows_and_in_what_unit(study_results):
    for make in ALL:
        every = axes_of(make(study_results))
        for label in [every[0].get_ylabel(), *(axes.get_xlabel() for axes in every)]:
            assert re.sub(r"[ ↓↑]+$", "", label).rsplit(maxsplit=1)[-1] in UNITS, f"{make.__name__}: {label!r}"


def test_any_two_strategies_differ_in_grey():
    for i, one in enumerate([*LOOKS, OTHER]):
        for other in [*LOOKS, OTHER][i + 1 :]:
            assert one.marker != other.marker and one.line != other.line and one.hatch != other.hatch


def test_any_two_parts_of_a_bar_differ_in_grey(study_results):
    (axes,) = axes_of(components(study_results))
    bars = [container[0] for container in axes.containers]
    seen = {(bar.get_hatch(), round(float(np.dot(to_rgb(bar.get_facecolor()), (0.299, 0.587, 0.114))), 1)) for bar in bars}
    assert len(seen) == len(bars) > 2


def test_the_same_figure_gives_the_same_bytes(study_results, tmp_path):
    for make in ALL:
        for folder in ("a", "b"):
            save(make(study_results), tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 3 * len(ALL)
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_files_are_fit_for_print(study_results, tmp_path):
    figure = quality_memory(study_results)
    save(figure, tmp_path)
    pdf = (tmp_path / "quality-memory.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    width, _ = figure.draw().get_size_inches()
    with Image.open(tmp_path / "quality-memory.png") as picture:
        assert picture.width == round(width * 300) and picture.info["dpi"][0] == pytest.approx(300, abs=0.5)
    svg = xml.parse(tmp_path / "quality-memory.svg").getroot()
    assert "peak memory, GiB" in ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_figures_of_one_page_share_no_ids_and_refer_to_their_own(study_results):
    found = [svg_element(make(study_results)) for make in ALL]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in found]
    assert all(ids) and sum(map(len, ids)) == len(set().union(*ids))
    for own, svg in zip(ids, found, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) <= own and "<style" not in svg
        root = xml.fromstring(svg)
        assert root.get("role") == "img" and len(root.get("aria-label")) > 30


@settings(max_examples=8)
@given(name=st.text(min_size=1, max_size=60), item=st.text(max_size=60))
def test_names_may_be_any_text(name, item):
    """Formulas, markup, other scripts and what no file may hold."""
    shown = plain(name + item)
    assert shown and len(shown) <= 48 and all(c.isprintable() for c in shown)
    panels = Panels("p", name, "", [name], [(item, [None])])
    xml.fromstring(svg_element(panel_figure(panels)))


@pytest.mark.parametrize(
    "name", ["$x^2", "a_b$c$", "<b>&amp;", "\\frac", "猫 кот", "line\nbreak\x00\x1b[31m", "n" * 300, "%s{}"]
)
def test_strategies_may_have_any_name(study_results, tmp_path, name):
    runs = study_results.runs.copy()
    runs["strategy"] = runs["strategy"].replace("A", name)
    results = Results(study_results.study, runs)
    for make in (quality_memory, throughput):
        save(make(results), tmp_path)
        xml.fromstring(svg_element(make(results)))


def test_a_study_of_which_nothing_ran_has_no_figures(tmp_path):
    results = with_fates(tmp_path, {(strategy, rank): ["not run"] * 3 for strategy in "ABC" for rank in (4, 16)})
    assert [make(results) for make in ALL] == [None] * len(ALL) and panels_of(results, tmp_path) is None


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_numbers_that_are_none_are_left_out(study_results):
    runs = study_results.runs.copy()
    runs.loc[runs["strategy"] == "A", [METRIC, "time.samples_per_s"]] = np.inf
    runs.loc[runs["strategy"] == "C", "memory.peak_allocated_gib"] = np.nan
    results = Results(study_results.study, runs)
    axes = axes_of(quality_memory(results))[0]
    assert len(axes.containers) == 1 and axes_of(throughput(results))


def test_of_many_cells_the_best_are_shown_and_the_caption_says_so(study_results):
    frames = [study_results.runs.assign(batch=batch, run=study_results.runs["run"] + f"-{batch}") for batch in range(1, 31)]
    runs = pd.concat(frames, ignore_index=True)
    runs[METRIC] += 0.01 * runs["batch"]
    results = Results(study_results.study, runs)
    assert len(results.cells) == 180 and len(best_cells(results)) == 40
    assert max(known(cell, METRIC).mean for cell in best_cells(results)) < np.nanmedian(cell_means(results, METRIC))
    for make in (quality_memory, components, predicted_measured, throughput):
        assert "Of 180 cells the 40 best" in make(results).caption
        assert len(axes_of(make(results))[0].get_yticks()) <= 41
    assert len(axes_of(axis_curves(results))) == 2


def test_means_of_all_cells_at_once_are_those_of_each(study_results):
    found = [cell.estimate(METRIC) for cell in study_results.cells]
    assert cell_means(study_results, METRIC) == pytest.approx([f.mean if f else np.nan for f in found], nan_ok=True)


def test_more_strategies_than_looks_share_one(study_results):
    runs = study_results.runs.copy()
    runs["strategy"] = [f"s{i}" for i in range(len(runs))]
    found = looks(Results(study_results.study, runs))
    assert len(found) == len(runs) and sum(look is not OTHER for look in found.values()) == len(LOOKS)


def test_panels_set_the_pretrained_model_first_and_find_what_is_called_by_its_outcome(tmp_path):
    results = measured(with_fates(tmp_path, {}))
    run = results.cells[1].ids[0]
    for folder, name in ((tmp_path / "base/fp32", "try-1-missed"), (tmp_path / "runs" / run, "try-1-success")):
        (folder / "pictures").mkdir(parents=True)
        Image.new("RGB", (90, 30), "red").save(folder / "pictures" / f"{name}.png")
    panels = panels_of(results, tmp_path)
    assert panels.columns == ["before training", "A"]
    assert [(name, [path.name for path in paths]) for name, paths in panels.rows] == [
        ("try-1", ["try-1-missed.png", "try-1-success.png"])
    ]
    drawn = panel_figure(panels).draw()
    assert sum(len(axes.images) for axes in drawn.get_axes()) == 2


def test_a_picture_that_cannot_be_read_leaves_its_place_empty(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    drawn = panel_figure(Panels("p", "t", "c", ["one"], [("item", [tmp_path / "bad.png"])])).draw()
    assert [text.get_text() for axes in drawn.axes for text in axes.texts] == ["no picture"]
