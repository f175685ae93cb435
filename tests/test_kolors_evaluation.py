"""What the numbers of Kolors' evaluation mean, and that they are found on real held-out collages."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_kolors import network
from torch import nn

from ablation.study import load_study
from ablation.systems.kolors import preparation
from ablation.systems.kolors.data.dataset import Placed
from ablation.systems.kolors.diffusion import add_noise, signal_left
from ablation.systems.kolors.evaluation import Errors, batches, computing, denoise
from ablation.systems.kolors.generate import generate, sampler
from ablation.systems.kolors.metrics import Judge, chance_of_recall, coverage, in_box, recall_at_1, union
from ablation.systems.kolors.pictures import COLOURS, SIDE, Shown, boxed, save_sheet
from ablation.systems.kolors.system import System
from ablation.training.model import for_evaluation

STUDY = Path(__file__).parent.parent / "config/studies/kolors-3x4090.yaml"
PHOTOGRAPHS = Path(__file__).parent.parent / "resources/photographs/objects"


def test_a_cell_is_in_a_box_as_far_as_its_area_is():
    boxes = torch.tensor([[[0.125, 0.0, 0.5, 0.5], [0.75, 0.75, 1.0, 1.0]]])
    covered = coverage(boxes, torch.tensor([[True, True]]), 4, 4)[0]
    assert torch.equal(covered[0], torch.tensor([[0.5, 1, 0, 0], [0.5, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert covered[1].sum() == covered[1, 3, 3] == 1


@pytest.mark.parametrize("seed", range(5))
def test_coverage_sums_to_the_area_of_the_box(seed):
    corners = torch.rand(3, 4, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(dim=2).values
    area = (corners[:, :, 1] - corners[:, :, 0]).prod(-1)
    covered = coverage(corners.flatten(2), torch.ones(3, 4, dtype=torch.bool), 5, 7)
    assert torch.allclose(covered.sum((-2, -1)) / 35, area, atol=1e-6)


def test_boxes_that_are_not_there_cover_nothing_and_overlaps_count_once():
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
    assert torch.equal(union(coverage(boxes, torch.tensor([[True, True, False]]), 2, 2)), torch.ones(1, 2, 2))
    assert coverage(boxes, torch.tensor([[True, True, False]]), 2, 2)[0, 2].sum() == 0
    assert not union(coverage(boxes, torch.zeros(1, 3, dtype=torch.bool), 2, 2)).any()


def test_errors_are_means_over_the_cells_they_are_in():
    errors = sum([Errors(3.0, 1.5, 1.0, 10.0), Errors(1.0, 0.5, 1.0, 10.0)], Errors())
    assert errors.means() == {"denoise_inside": 2.0, "denoise_outside": 0.1}
    assert Errors(1.0, 2.0).means() == {"denoise_inside": 0.5}


def test_recall_counts_each_way_by_itself():
    captions = torch.eye(3)
    pictures = torch.eye(3)[[0, 1, 1]]  # the third picture looks like the second
    same = torch.eye(3, dtype=torch.bool)
    assert recall_at_1(captions, captions, same) == (1.0, 1.0)
    assert recall_at_1(captions, pictures, same) == pytest.approx((2 / 3, 2 / 3))
    pair = same.clone()
    pair[1, 2] = pair[2, 1] = True
    assert recall_at_1(captions, pictures, pair) == pytest.approx((2 / 3, 1.0))
    assert chance_of_recall(pair) == pytest.approx(5 / 9)


def test_the_judge_tells_real_photographs_apart_by_what_they_show():
    paths = sorted(PHOTOGRAPHS.glob("*.jpg"))
    tell = Judge([path.stem for path in paths], [Image.open(path) for path in paths])
    rng = np.random.default_rng(0)
    for path in paths:
        seen = np.asarray(Image.open(path).resize((20, 20)), float)
        worse = (0.7 * seen + 20 + rng.normal(0, 15, seen.shape)).clip(0, 255)  # darker, paler, noisy
        assert tell(Image.fromarray(worse.astype(np.uint8))) == path.stem


def test_the_judge_does_not_count_a_content_as_known_when_it_judges_itself():
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    assert Judge(["a", "b"], [red, blue])(red) == "a"
    assert Judge(["a", "b"], [red, blue]).own_accuracy() == 0.0
    assert Judge(["a", "a", "b", "b"], [red, red, blue, blue]).own_accuracy() == 1.0


def test_a_box_is_cut_from_a_picture_of_any_size():
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (10, 5, 20, 10))
    cut = in_box(picture, np.array([0.25, 0.25, 0.5, 0.5]))
    assert cut.size == (10, 5)
    assert set(cut.getdata()) == {(255, 0, 0)}
    assert in_box(picture, np.array([0.25, 0.25, 0.251, 0.251])).size == (1, 1)


def test_euler_steps_with_the_true_noise_lead_back_to_the_latents():
    torch.manual_seed(0)
    truth, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    scheduler = sampler(20)
    first = scheduler.timesteps[0].long()
    latents = add_noise(truth, noise, first.expand(2)) / signal_left(first).sqrt()  # in the scheduler's scale
    for step in scheduler.timesteps:
        latents = scheduler.step(noise, step, latents).prev_sample
    assert torch.allclose(latents, truth, atol=1e-4)


def test_a_network_in_half_precision_is_judged_in_it():
    model = network()
    assert not torch.is_autocast_enabled("cpu")
    with computing(model, torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
    model.unet.to(torch.bfloat16)
    with computing(model, torch.device("cpu")):
        assert nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.bfloat16


def test_labels_are_drawn_as_text_whatever_they_say(tmp_path):
    labels = ["<script>alert(1)</script>", "$\\frac{1}{0$", "猫", "a" * 500, "two\nlines", ""]
    corners = np.tile(np.array([[0.1, 0.1, 0.9, 0.9]], np.float32), (len(labels), 1))
    picture = Image.new("RGB", (64, 64), "white")
    rows = [Shown(label, Placed(labels, corners), picture, picture, picture) for label in labels]
    save_sheet(tmp_path / "sheet.png", rows)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width < 5 * SIDE


def test_boxes_are_drawn_where_they_are():
    drawn = boxed(Image.new("RGB", (64, 64), "white"), Placed(["cat"], np.array([[0.25, 0.5, 0.75, 1.0]])), labels=False)
    frame = np.argwhere((np.asarray(drawn) != 255).any(-1))
    assert frame.min(0).tolist() == [SIDE // 2, SIDE // 4]
    assert frame.max(0).tolist() == [SIDE - 1, 3 * SIDE // 4]
    assert drawn.getpixel((SIDE // 4, SIDE // 2)) == tuple(bytes.fromhex(COLOURS[0][1:]))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's system, and prepared parts of few collages."""
    changes = {"scale": "demo", "data": {"collages": {"count": 24}, "test": 0.5}}
    evaluation = {"samples": 6, "batch": 4, "pictures": 5, "steps": 2, "noise_levels": 2}
    settings = load_study(STUDY, {**changes, "evaluation": evaluation})
    folders: dict[str, Path] = {}
    for leaf in settings.parts():
        for part in reversed(list(leaf.closure())):
            if part.id not in folders:
                folders[part.id] = tmp_path_factory.mktemp(part.stage)
                preparation.prepare(part, [folders[need.id] for need in part.needs], folders[part.id])
    return System(settings), [folders[leaf.id] for leaf in settings.parts()]


@pytest.fixture(scope="module")
def base(demo):
    """The demo's pretrained network, as the evaluation of the base gets it."""
    system, _ = demo
    weights = {name: Path(path) for name, path in system.settings.weight_files().items()}
    return for_evaluation(system, "fp32", weights, None, torch.device("cpu"))


def test_the_base_is_judged_on_held_out_collages(demo, base, tmp_path):
    system, folders = demo
    with torch.inference_mode():
        found = system.evaluate(base, folders, tmp_path, torch.device("cpu"))
    assert set(found.metrics) == {metric.name for metric in system.settings.metrics()}
    assert all(np.isfinite(value) for value in found.metrics.values())
    assert found.metrics["denoise_inside"] > found.metrics["denoise_outside"]  # objects are harder than backgrounds
    held_out = system.samples(folders, train=False)
    assert {row["item"] for row in found.items} == {label for index in range(6) for label in held_out.placed(index).labels}
    assert "among 6 held-out pictures" in found.notes["R@1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layouts-1.png", "layouts-2.png"]


def test_an_evaluation_finds_the_same_again(demo, base, tmp_path):
    system, folders = demo
    with torch.inference_mode():
        one, two = (system.evaluate(base, folders, tmp_path, torch.device("cpu")) for _ in range(2))
    assert one == two


def test_the_error_in_boxes_is_that_of_the_cells_in_them(demo, base):
    """By hand for one layout and one step, from the definition."""
    system, folders = demo
    samples, how = system.samples(folders, train=False), system.settings.evaluation.model_copy(update={"noise_levels": 1})
    ((_, batch),) = batches(samples, [0], 1, torch.device("cpu"))
    step = torch.tensor([550])
    with torch.inference_mode():
        found = denoise(base, samples, [0], how, torch.device("cpu"))
        noisy = add_noise(batch["latents"], batch["noise"], step)
        prompt = base.prompt(batch["tokens"], batch["token_mask"])
        predicted = base.denoise(noisy, step, prompt, None, batch["time_ids"])
    left = signal_left(step).item()
    latents = (noisy - (1 - left) ** 0.5 * predicted) / left**0.5
    error = (latents - batch["latents"]).square().mean(1)[0].numpy()
    side = samples.data.resolution
    fine = np.zeros((side, side))  # every pixel by itself: the demo's boxes end between pixels nowhere that matters
    for corners in samples.placed(0).corners:
        left, top, right, bottom = (round(float(at) * side) for at in corners)
        fine[top:bottom, left:right] = 1
    inside = fine.reshape(len(error), side // len(error), -1, side // len(error)).mean((1, 3))
    assert list(found.levels) == [550]
    means = found.overall.means()
    assert means["denoise_inside"] == pytest.approx((error * inside).sum() / inside.sum(), rel=0.01)
    assert means["denoise_outside"] == pytest.approx((error * (1 - inside)).sum() / (1 - inside).sum(), rel=0.01)


def test_an_untrained_adapter_draws_what_the_base_draws(demo, base):
    system, folders = demo
    samples = system.samples(folders, train=False)
    ((_, batch),) = batches(samples, [0, 1], 2, torch.device("cpu"))
    with torch.inference_mode():
        told, untold = (generate(base, batch, system.settings.evaluation, layout) for layout in (True, False))
    assert torch.equal(told, untold)


def test_a_preview_is_a_sheet_and_two_numbers(demo, base, tmp_path):
    system, folders = demo
    with torch.inference_mode():
        found = system.preview(base, folders, tmp_path, torch.device("cpu"))
    assert set(found) == {"denoise_inside", "denoise_outside"}
    assert [path.name for path in tmp_path.iterdir()] == ["layouts-1.png"]


def test_the_demo_s_networks_are_small():
    sizes = [
        path.stat().st_size for path in (STUDY.parent.parent.parent / "resources/kolors-demo").rglob("*") if path.is_file()
    ]
    assert sum(sizes) < 6e6
