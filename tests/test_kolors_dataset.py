"""Kolors' samples: pure functions of their draw, boxes in the frame of the square, latents as the autoencoder gives them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer
from hypothesis import given
from hypothesis import strategies as st
from layouts import SENTENCES, save_picture, save_tokenizer, save_vae, some_layouts
from PIL import Image

from ablation.errors import UserError
from ablation.parts import Part
from ablation.systems.base import Draw
from ablation.systems.kolors.data import latents as latents_module
from ablation.systems.kolors.data.boxes import Box
from ablation.systems.kolors.data.crop import LEFT_OVER, boxes_in, check_boxes, crop_of, cropped
from ablation.systems.kolors.data.dataset import LayoutDataset, split
from ablation.systems.kolors.data.latents import LATENTS, Latents, encode, factor_of, load_vae, write_latents
from ablation.systems.kolors.data.layouts import Layout, write_layouts
from ablation.systems.kolors.data.quality import REJECTED
from ablation.systems.kolors.data.settings import Collages, Data
from ablation.systems.kolors.data.tokens import Tokenizer
from ablation.systems.kolors.preparation import prepare

CPU = torch.device("cpu")
DATA = Data(resolution=32, text_length=16, label_length=3, max_boxes=4, test=0.25)
STEPS = 1100


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(pieces) -> Tokenizer:
    return Tokenizer(pieces)


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory, vae) -> tuple[Path, Path]:
    """Twelve pictures with layouts and latents, made as the workflow makes them."""
    root, listed, latents = (tmp_path_factory.mktemp(name) for name in ("images", "layouts", "latents"))
    write_layouts(some_layouts(root, 12), root, listed)
    prepare(Part("latents", "layouts", {"vae": str(vae), "resolution": 32}), [listed], latents)
    return listed, latents


def dataset(folders, tokenizer, train: bool = True, **changes) -> LayoutDataset:
    return LayoutDataset(folders, tokenizer, DATA.model_copy(update=changes), STEPS, train)


class TestTokens:
    @pytest.mark.parametrize("text", [*SENTENCES, "", "a cat, a fox; a dog!", "ünknown 茶", "photo " * 40])
    def test_as_diffusers(self, pieces, tokenizer, text):
        """The numbers, their prefix, the padding on the left and the cut are those of Kolors' pipeline."""
        reference = ChatGLMTokenizer(str(pieces / "tokenizer.model"))
        wanted = reference(text, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
        tokens, mask = tokenizer.caption(text, 16)
        assert tokens.tolist() == wanted.input_ids[0].tolist() and mask.tolist() == wanted.attention_mask[0].bool().tolist()

    def test_released_numbers(self, tokenizer):
        """Behind 64,789 pieces: [gMASK] 64790, sop 64792; here by the same rule."""
        assert [number - tokenizer.pieces.vocab_size() + 64_789 for number in tokenizer.prefix] == [64_790, 64_792]

    def test_label(self, tokenizer):
        tokens, mask = tokenizer.label("cat", 8)
        assert tokenizer.decode(tokens[mask].tolist()) == "cat" and mask.tolist() == sorted(mask.tolist(), reverse=True)
        assert not tokenizer.label("", 8).mask.any()

    def test_a_text_is_a_text(self, tokenizer):
        """No label ends a sentence or begins a turn."""
        for text in ("</s>", "<s>", "[gMASK]", "<|user|>", "<unk>"):
            marks = {tokenizer.pieces.bos_id(), tokenizer.pieces.eos_id(), *tokenizer.special.values()}
            assert not marks & set(tokenizer.label(text, 16).tokens.tolist())

    def test_no_tokenizer(self, tmp_path):
        with pytest.raises(UserError, match=r"tokenizer\.model is not there"):
            Tokenizer(tmp_path)
        (tmp_path / "tokenizer.model").write_bytes(b"junk")
        with pytest.raises(UserError, match="no sentencepiece model"):
            Tokenizer(tmp_path)


class TestCrop:
    @pytest.mark.parametrize("size", [(40, 30), (30, 40), (32, 32), (1000, 999), (63, 90), (7, 5)])
    def test_boxes_follow_the_picture(self, size):
        """A white box on black lies, after the cut, where its corners say."""
        width, height = size
        box = (round(width * 0.3), round(height * 0.45), round(width * 0.7), round(height * 0.6))
        image = Image.new("RGB", size)
        image.paste("white", box)
        bbox = tuple(round(1000 * value / whole) for value, whole in zip(box, (width, height) * 2, strict=True))
        kept, corners = boxes_in(crop_of(*size, 256), (Box("white", bbox),))
        assert kept == [0]
        white = np.argwhere(np.array(cropped(image, 256))[:, :, 0] > 127)
        seen = np.array([*white.min(axis=0)[::-1], *(white.max(axis=0) + 1)[::-1]]) / 256
        assert np.abs(seen - corners[0]).max() < 0.5 / min(size) + 0.02

    @given(st.tuples(*[st.integers(1, 5000)] * 2), st.lists(st.tuples(*[st.integers(0, 1000)] * 4), max_size=5))
    def test_any_boxes(self, size, corners):
        """What is kept is proper, and was at least half inside."""
        boxes = tuple(Box("x", c) for c in corners if c[0] < c[2] and c[1] < c[3])
        crop = crop_of(*size, 64)
        kept, inside = boxes_in(crop, boxes)
        check_boxes(inside)
        for number, (left, top, right, bottom) in zip(kept, inside.astype(float), strict=True):
            x1, y1, x2, y2 = boxes[number].bbox
            whole = (x2 - x1) * crop.width * (y2 - y1) * crop.height / 1000**2 / crop.size**2
            assert (right - left) * (bottom - top) >= LEFT_OVER * whole * (1 - 1e-3)

    def test_outside_is_dropped(self):
        """Of a picture twice as wide as high, the middle half is seen."""
        boxes = (Box("left", (0, 0, 200, 1000)), Box("most", (200, 0, 500, 1000)), Box("little", (700, 0, 900, 1000)))
        kept, corners = boxes_in(crop_of(200, 100, 64), boxes)
        assert kept == [1] and corners.tolist() == [[0, 0, 0.5, 1]]


class TestLatents:
    def test_posterior(self, folders, vae, tokenizer):
        """What is stored is the autoencoder's posterior of the square; its mean comes back where the noise is zero."""
        latents, model, data = Latents(folders[1]), load_vae(vae, CPU), dataset(folders, tokenizer)
        image = data.layouts[0].image
        posterior = model.encode(torch.from_numpy(np.array(data.picture(0))).permute(2, 0, 1)[None] / 127.5 - 1).latent_dist
        zero = np.zeros(latents.shape, np.float32)
        assert latents.shape == (4, 4, 4) and latents.scaling_factor == 0.13025
        torch.testing.assert_close(latents(image, zero), posterior.mean[0] * 0.13025, rtol=2e-3, atol=2e-3)
        one = (latents(image, zero + 1) - latents(image, zero)) / 0.13025
        torch.testing.assert_close(one, posterior.std[0], rtol=2e-3, atol=2e-3)

    def test_each_picture_once(self, tmp_path, vae):
        layouts = some_layouts(tmp_path, 3)
        write_latents([*layouts, layouts[0]._replace(caption="again")], tmp_path, load_vae(vae, CPU), 32, tmp_path)
        assert np.load(tmp_path / LATENTS).shape == (3, 2, 4, 4, 4)

    def test_one_by_one_as_together(self, tmp_path, vae):
        """Slicing is on: eight pictures take the memory of one, and give the same."""
        model = load_vae(vae, CPU)
        pictures = [cropped(Image.open(save_picture(tmp_path / f"{n}.png", seed=n)), 32) for n in range(3)]
        assert model.use_slicing and factor_of(model) == 8
        torch.testing.assert_close(encode(model, pictures), torch.cat([encode(model, [picture]) for picture in pictures]))

    def test_goes_on_where_it_stopped(self, tmp_path, vae, monkeypatch):
        """No picture is encoded twice, and the latents are those of an undisturbed making; of other pictures, all are."""
        layouts, model, seen = some_layouts(tmp_path, 5), load_vae(vae, CPU), []
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        for folder in (whole, parts):
            folder.mkdir()
        monkeypatch.setattr(latents_module, "AT_ONCE", 2)
        write_latents(layouts, tmp_path, model, 32, whole)

        def interrupted(vae, pictures):
            seen.append(len(pictures))
            if len(seen) == 2:
                raise KeyboardInterrupt
            return encode(vae, pictures)

        monkeypatch.setattr(latents_module, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_latents(layouts, tmp_path, model, 32, parts)
        write_latents(layouts, tmp_path, model, 32, parts)
        assert seen == [2, 2, 2, 1] and np.array_equal(np.load(parts / LATENTS), np.load(whole / LATENTS))
        write_latents(layouts[:4], tmp_path, model, 32, parts)
        assert seen == [2, 2, 2, 1, 2, 2] and np.array_equal(np.load(parts / LATENTS), np.load(whole / LATENTS)[:4])

    def test_changed_picture(self, tmp_path, vae):
        layouts, model = some_layouts(tmp_path, 2), load_vae(vae, CPU)
        save_picture(tmp_path / "1.png", (41, 30))
        with pytest.raises(UserError, match=r"1\.png: \(41, 30\) pixels, \(40, 30\) when"):
            write_latents(layouts, tmp_path, model, 32, tmp_path)
        (tmp_path / "1.png").unlink()
        with pytest.raises(UserError, match=r"1\.png: absent image since the layouts were made"):
            write_latents(layouts, tmp_path, model, 32, tmp_path)

    def test_unfit_vae(self, tmp_path, vae):
        model = load_vae(vae, CPU)
        with pytest.raises(UserError, match=r"config\.json is not there"):
            load_vae(tmp_path, CPU)
        with pytest.raises(UserError, match=r"data\.resolution = 36 must be a multiple"):
            write_latents([], tmp_path, model, 36, tmp_path)
        torch.nn.init.constant_(model.quant_conv.bias, 1e6)
        with pytest.raises(UserError, match="not finite, or beyond fp16"):
            encode(model, [Image.new("RGB", (32, 32))])

    def test_a_map_is_no_copy(self, folders):
        """Into a worker's process goes the path, not the array."""
        latents = Latents(folders[1])
        assert latents.shape and len(pickle.dumps(latents)) < 2000
        assert pickle.loads(pickle.dumps(latents)).shape == latents.shape


class TestSamples:
    def test_shapes(self, folders, tokenizer):
        sample = dataset(folders, tokenizer)[Draw(0, 0, 0, 0)]
        shapes = {name: (tuple(value.shape), value.dtype) for name, value in sample.items()}
        field = ((4, 4, 4), torch.float32)
        assert shapes == {
            "latents": field, "noise": field, "feature_noise": field, "diffusion": ((), torch.int64),
            "tokens": ((16,), torch.int64), "token_mask": ((16,), torch.bool),
            "boxes": ((4, 4), torch.float32), "box_mask": ((4,), torch.bool),
            "labels": ((4, 3), torch.int64), "label_mask": ((4, 3), torch.bool), "time_ids": ((6,), torch.float32),
        }  # fmt: skip

    def test_objects(self, folders, tokenizer):
        """Boxes of 40 x 30 in the middle 30 x 30: x goes from 125 to 875 thousandths."""
        data = dataset(folders, tokenizer)
        sample, number = data[Draw(0, 0, 0, 0)], int(data.layouts[0].image.removesuffix(".png"))
        left, right = max(0, (100 + number) / 750 - 1 / 6), (500 - 125) / 750
        wanted = torch.tensor([[left, 0.2, right, 0.7], [right, 0.3, (700 - 125) / 750, 0.65]])
        torch.testing.assert_close(sample["boxes"][:2], wanted, rtol=0, atol=1 / 32)
        assert sample["box_mask"].tolist() == [True, True, False, False] and not sample["boxes"][2:].any()
        assert tokenizer.decode(sample["labels"][0][sample["label_mask"][0]].tolist()) == "cat"
        assert sample["time_ids"].tolist() == [30, 40, 0, 5, 32, 32] and not sample["label_mask"][2:].any()

    def test_caption(self, folders, tokenizer):
        sample = dataset(folders, tokenizer, text_length=64)[Draw(0, 0, 0, 0)]
        tokens, mask = sample["tokens"], sample["token_mask"]
        assert tokens[mask][:2].tolist() == tokenizer.prefix and mask.tolist() == sorted(mask.tolist())
        assert tokenizer.decode(tokens[mask].tolist()).startswith("a photo of a cat and a cup on grass")

    def test_pure(self, folders, tokenizer):
        """The same draw, the same bits; another epoch, seed or index, other noise; the step of the epoch changes nothing."""
        one, two = dataset(folders, tokenizer), dataset(folders, tokenizer)
        draw = Draw(1, 2, 3, 4)
        assert all(torch.equal(one[draw][name], two[draw._replace(step=9)][name]) for name in one[draw])
        for other in (draw._replace(seed=2), draw._replace(epoch=3), draw._replace(index=5)):
            for name in ("latents", "noise", "feature_noise"):
                assert not torch.equal(one[draw][name], one[other][name])

    def test_evaluation_has_no_chance(self, folders, tokenizer):
        held = dataset(folders, tokenizer, train=False)
        one, two = held[Draw(0, 0, 0, 1)], held[Draw(5, 6, 7, 1)]
        assert all(torch.equal(one[name], two[name]) for name in one)

    def test_noises_differ(self, folders, tokenizer):
        """Each thing that is random has numbers of its own."""
        sample = dataset(folders, tokenizer)[Draw(0, 0, 0, 0)]
        assert not torch.equal(sample["noise"], sample["feature_noise"])
        steps = [int(dataset(folders, tokenizer)[Draw(0, epoch, 0, 0)]["diffusion"]) for epoch in range(20)]
        assert all(0 <= step < STEPS for step in steps) and len(set(steps)) > 10

    def test_most_boxes(self, folders, tokenizer):
        """The largest, in the order of the layout."""
        data = dataset(folders, tokenizer, max_boxes=1)
        assert data.placed(0).labels == ["cat"]

    def test_other_resolution(self, folders, tokenizer):
        with pytest.raises(UserError, match=r"made for data\.resolution = 32, not 64"):
            dataset(folders, tokenizer, resolution=64)

    def test_without_boxes_in_the_middle(self, folders, tokenizer, tmp_path, caplog):
        """Such pictures are left out, and counted; with no other, there is nothing to train on."""
        layouts = some_layouts(tmp_path, 12, (80, 20))
        aside = [layout._replace(boxes=(Box("cat", (0, 0, 100, 100)),)) for layout in layouts]
        trained = [layout.image for layout in split(layouts, DATA.test)[0]]
        write_layouts(
            [a if a.image in trained[:4] else layout for a, layout in zip(aside, layouts, strict=True)], tmp_path, tmp_path
        )
        assert len(dataset((tmp_path, folders[1]), tokenizer)) == len(trained) - 4
        assert f"4 of {len(trained)} samples have no box in the middle" in caplog.text
        write_layouts(aside, tmp_path, tmp_path)
        with pytest.raises(UserError, match="no sample has a box in the middle"):
            dataset((tmp_path, folders[1]), tokenizer)


def test_from_collages_to_samples(tmp_path, tokenizer, vae):
    """The parts that the demo's settings declare, made and read; the collages pass all checks."""
    photographs = Path(__file__).parent.parent / "resources/photographs"
    data = DATA.model_copy(update={"source": "collages", "collages": Collages(photographs=str(photographs), count=8)})
    layouts, latents = data.parts(str(vae), 4)
    folders = [tmp_path / part.id for part in (layouts, latents)]
    for folder, part in zip(folders, (layouts, latents), strict=True):
        folder.mkdir()
        prepare(part, folders[:1] if part.needs else [], folder)
    samples = [LayoutDataset(folders, tokenizer, data, STEPS, train) for train in (True, False)]
    assert [len(half) for half in samples] == [6, 2] and not (folders[0] / REJECTED).exists()
    sample, shown = samples[0][Draw(0, 0, 0, 3)], samples[0].placed(3)
    assert samples[0].picture(3).size == (32, 32) and int(sample["box_mask"].sum()) == len(shown.labels)
    assert all(label in samples[0].layouts[3].caption for label in shown.labels)


class TestSplit:
    LAYOUTS = [Layout(f"{n // 2}.png", 4, 4, f"caption {n}", (Box("x", (0, 0, 1, 1)),)) for n in range(40)]

    @pytest.mark.parametrize(("test", "kept"), [(0.01, 1), (0.25, 5), (0.99, 19)])
    def test_by_picture(self, test, kept):
        """Captions of a picture stay together; none is lost, none on both sides, whatever the order of the file."""
        trained, held = split(self.LAYOUTS, test)
        assert len({layout.image for layout in held}) == kept and sorted(trained + held) == sorted(self.LAYOUTS)
        assert not {layout.image for layout in trained} & {layout.image for layout in held}
        assert set(split(self.LAYOUTS[::-1], test)[1]) == set(held)

    def test_one_picture(self):
        with pytest.raises(UserError, match="at least two are needed"):
            split(self.LAYOUTS[:2], 0.5)


class TestBoxesAtTheDoor:
    @pytest.mark.parametrize(
        "corners",
        [[10, 20, 300, 400], [0.5, 0.1, 0.2, 0.4], [0, 0, 1.001, 1], [-0.1, 0, 1, 1], [0.2, 0.2, 0.2, 0.4], [np.nan, 0, 1, 1]],
    )
    def test_refused(self, corners):
        with pytest.raises(ValueError, match=r"within 0\.\.1"):
            check_boxes(np.array([corners], np.float32))

    @pytest.mark.parametrize("bbox", [(0, 0, 1200, 900), (500, 200, 100, 700), (0.1, 0.2, 0.1, 0.9)])
    def test_looked_at_for_every_sample(self, folders, tokenizer, bbox):
        """Pixels or swapped corners that get past all earlier checks stop the training; they are not cut to fit."""
        data = dataset(folders, tokenizer)
        data.layouts[0] = data.layouts[0]._replace(boxes=(Box("cat", (0, 0, 500, 500)), Box("dog", bbox)))
        with pytest.raises(ValueError, match=r"within 0\.\.1"):
            data[Draw(0, 0, 0, 0)]

    def test_whole_picture(self):
        check_boxes(np.array([[0, 0, 1, 1]], np.float32))
        check_boxes(np.zeros((0, 4), np.float32))


class TestSettings:
    def test_parts(self):
        """Layouts need the labels' shards, latents the layouts; captions' length does not make latents anew."""
        layouts, latents = Data(labelled={"shards": 3}).parts("vae", 4)
        assert [need.stage for need in layouts.needs] == ["labels"] * 3 and latents.needs == (layouts,)
        assert len({need.id for need in layouts.needs}) == 3 and all(need.gpus == 1 for need in layouts.needs)
        other = Data(labelled={"shards": 3}, text_length=77, max_boxes=9, test=0.5).parts("vae", 4)
        assert [part.id for part in other] == [layouts.id, latents.id]
        assert Data(labelled={"shards": 3}, resolution=512).parts("vae", 4)[1].id != latents.id

    def test_outside(self):
        assert Data(source="layouts").outside() == ["data/kolors/images", "data/kolors/layouts.jsonl"]
        assert Data(source="collages").outside() == ["resources/photographs"]
