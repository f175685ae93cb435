"""Images of any layout become lists and cached latents, bad ones are named, and chance is a pure function of the draw."""

import csv
import json
import logging
import pickle
from types import SimpleNamespace

import drawings
import numpy as np
import pytest
import torch
from conftest import ROOT
from hostile_files import png
from PIL import Image
from pydantic import ValidationError

from ablation.errors import UserError
from ablation.systems.base import Draw
from ablation.systems.dit.autoencoder import Autoencoder, unfit
from ablation.systems.dit.data.captions import Captions, cache_captions
from ablation.systems.dit.data.dataset import LatentDataset
from ablation.systems.dit.data.images import centred, cropped, read_picture
from ablation.systems.dit.data.latents import Latents, cache_latents, versions_of
from ablation.systems.dit.data.listing import (
    LEFT_OUT,
    find_images,
    kept_places,
    read_list,
    source_root,
    split,
    write_list,
)
from ablation.systems.dit.data.told import Told
from ablation.systems.dit.settings import Data

CPU = torch.device("cpu")
VAE = ROOT / "resources/dit-demo-vae"
SCALE = 0.5


def found(data: Data, out):
    """As the workflow lists a source: found, written, read."""
    listed = find_images(data, out)
    write_list(listed, source_root(data, out), out)
    assert read_list(out) == (source_root(data, out), listed.images, listed.classes)
    return listed


def left_out(out) -> dict[str, str]:
    with (out / LEFT_OUT).open(newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


# --- folders of classes ----------------------------------------------------------------------------------------------


def test_a_folder_is_a_class(tmp_path):
    drawings.write_classes(tmp_path / "in", each=2)
    listed = found(Data(source="folder", root=str(tmp_path / "in"), size=16), tmp_path)
    assert listed.classes == ["blue", "red"]
    assert [(told.file, told.label) for told in listed.images] == [
        ("blue/0.png", 0), ("blue/1.png", 0), ("red/0.png", 1), ("red/1.png", 1),
    ]  # fmt: skip
    assert not (tmp_path / LEFT_OUT).exists()


def test_bad_images_are_left_out_and_named(tmp_path, caplog):
    root = tmp_path / "in"
    drawings.write_classes(root, each=3)
    (root / "red/1.png").write_bytes((root / "red/0.png").read_bytes()[:300])
    (root / "red/text.jpg").write_text("no picture")
    drawings.write_picture(tmp_path / "secret.png")
    (root / "blue/link.png").symlink_to(tmp_path / "secret.png")
    drawings.write_picture(root / "stray.png")
    listed = found(Data(source="folder", root=str(root), size=16), tmp_path)
    assert len(listed.images) == 5
    reasons = left_out(tmp_path)
    assert reasons["blue/link.png"] == "leads out of the folder" and reasons["stray.png"] == "in no folder of a class"
    assert reasons["red/1.png"].startswith("cannot be read") and reasons["red/text.jpg"].startswith("cannot be read")
    assert "4 images are left out" in caplog.text and "'red/text.jpg'" in caplog.text


def test_a_bomb_is_not_opened(tmp_path):
    for colour in drawings.COLOURS:
        (tmp_path / "in" / colour).mkdir(parents=True)
        (tmp_path / "in" / colour / "0.png").write_bytes(png(50_000, 40_000, b""))
    with pytest.raises(
        UserError, match=r"0 images below .* can be used; 4 are the least.*\n  2 cannot be read: too many pixels"
    ):
        find_images(Data(source="folder", root=str(tmp_path / "in"), size=16), tmp_path)


@pytest.mark.parametrize("condition", ["class", "caption"])
def test_an_empty_folder_is_one_error(tmp_path, condition):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"data\.root: .*in"):
        find_images(Data(source="folder", root=str(tmp_path / "in"), condition=condition), tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        find_images(Data(source="folder", root=str(tmp_path / "nowhere"), condition=condition), tmp_path)


def test_fewer_samples_are_spread_over_the_names(tmp_path):
    drawings.write_classes(tmp_path / "in", each=6)
    listed = find_images(Data(source="folder", root=str(tmp_path / "in"), size=16, samples=4), tmp_path)
    assert [told.label for told in listed.images] == [0, 0, 1, 1]


# --- captions --------------------------------------------------------------------------------------------------------


def test_captions_stand_beside_the_images(tmp_path):
    root = tmp_path / "in"
    drawings.write_captions(root, 6)
    (root / "1.txt").unlink()
    (root / "2.txt").write_bytes(b"\xff\xfe\x00")
    listed = found(Data(source="folder", root=str(root), condition="caption"), tmp_path)
    assert [told.captions[0][-1] for told in listed.images] == ["0", "3", "4", "5"]
    assert listed.images[0].captions == ("a red field, number 0",)
    assert left_out(tmp_path) == {"1.jpg": "no caption", "2.jpg": "a caption that is not UTF-8"}


def test_captions_stand_in_a_file_of_hugging_face(tmp_path):
    root = tmp_path / "in"
    drawings.write_captions(root, 6)
    lines = [
        json.dumps({"file_name": "0.jpg", "text": "zero"}),
        json.dumps({"file_name": "0.jpg", "text": "nought"}),
        json.dumps({"file_name": "1.jpg", "text": " one \n"}),
        "{broken",
        json.dumps({"file_name": "2.jpg", "text": 7}),
        json.dumps({"file_name": "../../etc/passwd", "text": "a secret"}),
        json.dumps({"file_name": "/etc/passwd", "text": "a secret"}),
        json.dumps({"file_name": "gone.jpg", "text": "gone"}),
        json.dumps({"file_name": "x" * 5000, "text": "a long name"}),
        json.dumps({"file_name": "", "text": "no name"}),
        json.dumps({"file_name": "circle.jpg", "text": "a link to itself"}),
        json.dumps({"file_name": "a\0b", "text": "an end"}),
        json.dumps(["a list"]),
        "",
    ]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    listed = found(Data(source="folder", root=str(root), condition="caption"), tmp_path)
    assert listed.images[:2] == [Told("0.jpg", None, ("zero", "nought")), Told("1.jpg", None, ("one",))]
    assert [told.captions for told in listed.images[2:4]] == [("a red field, number 2",), ("a blue field, number 3",)]
    assert left_out(tmp_path) == {
        "metadata.jsonl, line 4": "no file_name and text",
        "metadata.jsonl, line 5": "no file_name and text",
        "metadata.jsonl, line 10": "no file_name and text",
        "metadata.jsonl, line 13": "no file_name and text",
        "../../etc/passwd": "leads out of the folder",
        "/etc/passwd": "leads out of the folder",
        "gone.jpg": "is not there",
        "x" * 5000: "cannot be read: not to be opened",
        "circle.jpg": "leads out of the folder",
        "a\\x00b": "leads out of the folder",
    }


def as_windows_writes(path, text: str) -> None:
    path.write_bytes(("\ufeff" + text).replace("\n", "\r\n").encode())


def test_no_image_and_no_row_is_lost_uncounted(tmp_path):
    """Images that the metadata does not name, with and without a .txt file; a mark before the first row; CRLF."""
    root = tmp_path / "in"
    drawings.write_captions(root, 8)
    (root / "7.txt").unlink()
    as_windows_writes(root / "6.txt", "six\n")
    rows = [json.dumps({"file_name": f"{number}.jpg", "text": f"row {number}"}) for number in range(4)]
    as_windows_writes(root / "metadata.jsonl", "\n".join(rows) + "\n")
    listed = found(Data(source="folder", root=str(root), condition="caption"), tmp_path)
    captions = {told.file: told.captions for told in listed.images}
    assert (
        captions["0.jpg"] == ("row 0",) and captions["6.jpg"] == ("six",) and captions["5.jpg"] == ("a blue field, number 5",)
    )
    assert left_out(tmp_path) == {"7.jpg": "no caption"} and len(captions) == 7


def test_an_empty_metadata_file_hides_nothing(tmp_path):
    drawings.write_captions(tmp_path / "in", 5)
    (tmp_path / "in/metadata.jsonl").write_text("")
    assert len(found(Data(source="folder", root=str(tmp_path / "in"), condition="caption"), tmp_path).images) == 5


@pytest.mark.parametrize("keys", [("file_name", "text"), ("file_name", "caption"), ("image_file_name", "prompt")])
def test_captions_stand_in_a_csv_file(tmp_path, keys):
    root = tmp_path / "in"
    drawings.write_captions(root, 5)
    rows = "".join(f'{number}.jpg,"red, {number}"\n' for number in range(5))
    as_windows_writes(root / "metadata.csv", ",".join(keys) + "\n" + rows)
    listed = found(Data(source="folder", root=str(root), condition="caption"), tmp_path)
    assert [told.captions for told in listed.images] == [(f"red, {number}",) for number in range(5)]


def test_metadata_of_splits_name_images_of_their_own_folders(tmp_path):
    root = tmp_path / "in"
    for split_name in ("train", "test"):
        drawings.write_captions(root / split_name, 3)
        rows = [json.dumps({"file_name": f"{number}.jpg", "text": f"{split_name} {number}"}) for number in range(3)]
        (root / split_name / "metadata.jsonl").write_text("\n".join(rows))
    listed = found(Data(source="folder", root=str(root), condition="caption"), tmp_path)
    assert [(told.file, *told.captions) for told in listed.images][:2] == [("test/0.jpg", "test 0"), ("test/1.jpg", "test 1")]
    assert len(listed.images) == 6


def test_two_keys_for_a_caption_are_refused(tmp_path):
    drawings.write_captions(tmp_path / "in", 5)
    (tmp_path / "in/metadata.jsonl").write_text(json.dumps({"file_name": "0.jpg", "text": "a", "caption": "b"}))
    with pytest.raises(UserError, match=r"metadata\.jsonl: the caption may be in text or in caption; keep one"):
        find_images(Data(source="folder", root=str(tmp_path / "in"), condition="caption"), tmp_path)


# --- folders that are no classes -------------------------------------------------------------------------------------


def test_splits_are_no_classes(tmp_path, caplog):
    for split_name in ("train", "val"):
        drawings.write_classes(tmp_path / "in" / split_name, each=3)
    with caplog.at_level(logging.INFO):
        listed = found(Data(source="folder", root=str(tmp_path / "in"), size=16), tmp_path)
    assert listed.classes == ["blue", "red"] and [told.label for told in listed.images] == [0] * 6 + [1] * 6
    assert (
        "train, val are splits, no classes" in caplog.text and "2 classes, each with its images: blue 6, red 6" in caplog.text
    )


def test_splits_of_images_without_classes_are_refused(tmp_path):
    for split_name in ("train", "val"):
        drawings.write_captions(tmp_path / "in" / split_name, 3)
    with pytest.raises(UserError, match="are train, val, which are no classes, and images lie straight in them"):
        find_images(Data(source="folder", root=str(tmp_path / "in"), size=16), tmp_path)


def test_classes_one_folder_deeper_are_told(tmp_path):
    drawings.write_classes(tmp_path / "in/images", each=3)
    with pytest.raises(UserError, match=r"lie in images, which would be the only class; is data\.root: .*in/images meant"):
        find_images(Data(source="folder", root=str(tmp_path / "in"), size=16), tmp_path)


def test_hidden_folders_and_files_are_no_classes_and_are_counted(tmp_path):
    root = tmp_path / "in"
    drawings.write_classes(root, each=3)
    for name in (".ipynb_checkpoints/a.jpg", "__MACOSX/b.jpg", "red/._c.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        drawings.write_picture(root / name, "red", 0)
    listed = found(Data(source="folder", root=str(root), size=16), tmp_path)
    assert listed.classes == ["blue", "red"] and len(listed.images) == 6
    assert left_out(tmp_path) == dict.fromkeys([".ipynb_checkpoints/a.jpg", "__MACOSX/b.jpg", "red/._c.jpg"], "hidden")


# --- few images ------------------------------------------------------------------------------------------------------


def test_every_split_leaves_two_images_on_either_side():
    """The Fréchet distance needs the spread of two; with one held out, an evaluation ended in a LinAlgError."""
    for count in range(4, 40):
        for test in (0.01, 0.1, 0.2, 0.5, 0.99):
            trained, kept = split(list(range(count)), test)
            assert len(trained) >= 2 <= len(kept) and sorted(trained + kept) == list(range(count))


def test_three_images_are_too_few(tmp_path):
    drawings.write_captions(tmp_path / "in", 3)
    with pytest.raises(UserError, match=r"3 images below .* can be used; 4 are the least, 2 to train on and 2 to judge by"):
        find_images(Data(source="folder", root=str(tmp_path / "in"), condition="caption"), tmp_path)


def test_captions_are_encoded_in_small_letters(tmp_path):
    """As PixArt-alpha's encoder and pipeline do."""
    heard = []

    def encode(text):
        heard.append(text)
        return torch.ones(len(text) + 1, 2).half()

    cache_captions(["A Man.", "a man.", "ÜBER"], encode, tmp_path)
    assert heard == ["", "a man.", "über"]
    captions = Captions(tmp_path, 10)
    assert torch.equal(captions("A MAN.")[0], captions("a man.")[0]) and captions("Über")[1].sum() == 5


# --- COCO ------------------------------------------------------------------------------------------------------------


def coco(root, condition="class") -> Data:
    return Data(source="coco", root=str(root), part="val2017", condition=condition, size=16)


def test_a_coco_image_is_of_the_class_of_its_largest_object(tmp_path):
    drawings.write_coco(tmp_path / "in")
    listed = found(coco(tmp_path / "in"), tmp_path)
    assert listed.classes == ["red thing", "blue thing"]  # in the order of their numbers
    assert [told.label for told in listed.images] == [0, 0, 0, 0]


def test_a_coco_image_has_all_its_captions(tmp_path):
    drawings.write_coco(tmp_path / "in")
    listed = found(coco(tmp_path / "in", "caption"), tmp_path)
    assert listed.images[1] == Told("000000000001.jpg", None, ("a field 11", "all red 11"))


def test_bad_rows_of_coco_are_left_out_and_named(tmp_path):
    root = tmp_path / "in"
    drawings.write_coco(root)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"] += [
        {"id": 50, "file_name": "../../../etc/passwd"},
        {"id": 51, "file_name": "gone.jpg"},
        {"id": 52, "file_name": "nothing.jpg"},
        {"id": "53"},
        "text",
    ]
    content["annotations"] += [
        {"image_id": 50, "category_id": 3, "area": 1},
        {"image_id": 51, "category_id": 3, "area": 1},
        {"image_id": 52, "category_id": 999, "area": 1},
        {"image_id": 52, "category_id": 3, "area": 1, "iscrowd": 1},
        {"image_id": 52, "category_id": 3, "area": "large"},
        None,
    ]
    path.write_text(json.dumps(content))
    listed = found(coco(root), tmp_path)
    assert len(listed.images) == 4
    reasons = left_out(tmp_path)
    assert reasons["../../../etc/passwd"] == "leads out of the folder" and reasons["gone.jpg"] == "is not there"
    assert reasons["nothing.jpg"] == "no object that has a class"
    assert reasons["text"] == reasons["{'id': '53'}"] == "no id and file_name"


@pytest.mark.parametrize(("content", "words"), [("[]", "no lists"), ("{", "is no JSON"), ('{"images": 1}', "no lists"),
                                                ('{"images": [], "annotations": []}', "names no image")])  # fmt: skip
def test_annotations_that_are_none_are_one_error(tmp_path, content, words):
    drawings.write_coco(tmp_path / "in")
    (tmp_path / "in/annotations/instances_val2017.json").write_text(content)
    with pytest.raises(UserError, match=rf"instances_val2017\.json: .*{words}"):
        find_images(coco(tmp_path / "in"), tmp_path)
    (tmp_path / "in/annotations/instances_val2017.json").unlink()
    with pytest.raises(UserError, match="is not there; COCO's images and annotations"):
        find_images(coco(tmp_path / "in"), tmp_path)


# --- digits, images, splits ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder of the demo's images, and their list."""
    out = tmp_path_factory.mktemp("digits")
    data = Data(source="digits", root=str(ROOT / "resources/digits"), size=32, flip=False)
    return out, found(data, out)


def test_there_are_1797_digits_of_ten_classes(digits):
    out, listed = digits
    assert len(listed.images) == 1797 and listed.classes == [str(digit) for digit in range(10)]
    image = centred(read_picture(out / listed.images[0].file), 32)
    assert image.shape == (3, 32, 32) and image.dtype == torch.uint8 and image.max() > 200 and (image[:, 0, 0] == 0).all()


def test_a_file_that_holds_no_digits_is_an_error(tmp_path):
    data = Data(source="digits", root=str(tmp_path), size=32, flip=False)
    with pytest.raises(UserError, match=r"digits\.csv\.gz: cannot be read"):
        find_images(data, tmp_path)


def test_a_mirrored_digit_is_no_digit():
    with pytest.raises(ValidationError, match="a mirrored digit is no digit"):
        Data(source="digits")


def test_the_split_keeps_a_share_of_every_class(digits):
    _, listed = digits
    trained, kept = split(listed.images, 0.2)
    assert len(kept) == 359 and set(trained).isdisjoint(kept) and len(trained) + len(kept) == 1797
    counts = np.bincount([told.label for told in kept])
    assert counts.min() >= 34
    assert kept_places(4, 0.01) == [1, 3] and len(kept_places(4, 0.99)) == 2


def test_images_are_cut_not_stretched(tmp_path):
    half = np.zeros((40, 80, 3), np.uint8)
    half[:, 40:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    middle = centred(read_picture(tmp_path / "half.png"), 20).float()
    assert middle.shape == (3, 20, 20) and middle[..., :9].mean() < 5 and middle[..., 11:].mean() > 250
    rng = np.random.default_rng(0)
    shares = {float(cropped(rng, read_picture(tmp_path / "half.png"), 20).float().mean()) for _ in range(8)}
    assert len(shares) > 4


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (4, 8)


# --- the cache of latents --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """Twelve pictures of two classes with two crops each, mirrored or not: list, data, folder of the latents."""
    out = tmp_path_factory.mktemp("latents")
    drawings.write_classes(out / "in")
    data = Data(source="folder", root=str(out / "in"), size=32, crops=1, test=0.25)
    write_list(find_images(data, out), out / "in", out)
    listed = read_list(out)
    cache_latents(listed, Autoencoder(VAE, CPU, slicing=False).encode, data, out)
    return listed, data, out


def dataset(cached, train=True, **changed) -> LatentDataset:
    listed, data, out = cached
    images = split(list(enumerate(listed.images)), data.test)[0 if train else 1]
    return LatentDataset(images, Latents(out), None, data.model_copy(update=changed), SCALE, 99, train)


def test_the_cache_holds_what_the_autoencoder_makes_of_every_version(cached):
    listed, data, out = cached
    latents = Latents(out)
    for number in (0, 7):
        versions = torch.stack(list(versions_of(listed.root / listed.images[number].file, listed.images[number].file, data)))
        assert len(versions) == data.versions == 4
        torch.testing.assert_close(versions[0].flip(-1), versions[1], rtol=0, atol=0)
        assert not torch.equal(versions[0], versions[2])
        expected = Autoencoder(VAE, CPU, slicing=number == 0).encode(versions)
        for version in range(4):
            torch.testing.assert_close(latents(number, version), expected[version], rtol=2e-3, atol=2e-3)


def test_decoding_gives_the_image_back(digits):
    out, listed = digits
    image = centred(read_picture(out / listed.images[5].file), 32)[None]
    autoencoder = Autoencoder(VAE, CPU, slicing=False)
    again = autoencoder.decode(autoencoder.encode(image).chunk(2, dim=1)[0] * autoencoder.scale)
    assert (again.float() - image.float()).abs().mean() < 8  # of 255


def test_latents_that_are_not_finite_are_refused(cached, tmp_path):
    listed, data, _ = cached
    with pytest.raises(UserError, match=r"0\.png: its latents are not finite"):
        cache_latents(listed, lambda images: torch.full((len(images), 8, 8, 8), torch.nan), data, tmp_path)


def test_a_full_disk_is_told_before_it_is_full(cached, tmp_path, monkeypatch):
    listed, data, _ = cached
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(UserError, match="the latents need"):
        cache_latents(listed, lambda images: torch.zeros(len(images), 8, 8, 8), data, tmp_path)


def test_a_sample_is_a_pure_function_of_its_draw(cached):
    samples = dataset(cached)
    one, again, other = (samples[Draw(0, epoch, step, 3)] for epoch, step in ((1, 0), (1, 5), (2, 0)))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["noise"], other["noise"]) and not torch.equal(one["latents"], other["latents"])
    crossed = pickle.loads(pickle.dumps(samples))[Draw(0, 1, 0, 3)]
    assert all(torch.equal(one[name], crossed[name]) for name in one)


def test_latents_are_drawn_around_the_mean_and_scaled(cached):
    samples = dataset(cached, flip=False, crops=0)
    drawn = torch.stack([samples[Draw(0, epoch, 0, 0)]["latents"] for epoch in range(300)])
    mean, log_variance = Latents(cached[2])(samples.images[0][0], 0).chunk(2)
    spread = (log_variance / 2).exp() * SCALE
    assert ((drawn.mean(dim=0) - mean * SCALE).abs() < 5 * spread / 300**0.5).all()
    torch.testing.assert_close(drawn.std(dim=0), spread, rtol=0.25, atol=1e-4)


def test_training_tells_nothing_now_and_then_and_evaluation_never_does(cached):
    samples = dataset(cached, dropout=0.25)
    labels = np.array([[int(samples[Draw(0, epoch, 0, index)]["label"]) for index in range(9)] for epoch in range(100)])
    assert 0.2 < (labels == 99).mean() < 0.3
    assert {int(label) for label in labels[:, 0]} == {samples.images[0][1].label, 99}
    kept = dataset(cached, train=False, dropout=1.0)
    assert [int(kept[Draw(0, 0, 0, index)]["label"]) for index in range(len(kept))] == [t.label for _, t in kept.images]
    assert all(torch.equal(kept[Draw(1, 2, 3, 0)][name], value) for name, value in kept[Draw(0, 0, 0, 0)].items())


def test_dropout_changes_nothing_else(cached):
    """So that runs that differ in it share all their noise."""
    told, untold = (dataset(cached, dropout=dropout)[Draw(0, 4, 0, 2)] for dropout in (0.0, 1.0))
    assert torch.equal(told["noise"], untold["noise"]) and torch.equal(told["latents"], untold["latents"])
    assert int(told["label"]) != 99 and int(untold["label"]) == 99


def test_every_version_is_seen_in_training_and_the_first_in_evaluation(cached):
    trained, kept = dataset(cached), dataset(cached, train=False)
    seen = []
    for samples in (trained, kept):
        latents = samples.latents
        samples.latents = lambda number, version, latents=latents: seen.append(version) or latents(number, version)
    for epoch in range(40):
        trained[Draw(0, epoch, 0, 1)]
    assert set(seen) == {0, 1, 2, 3}
    seen.clear()
    kept[Draw(0, 0, 0, 1)]
    assert seen == [0]


# --- the cache of captions -------------------------------------------------------------------------------------------


def states(text: str) -> torch.Tensor:
    """A state a letter, and one more for the end."""
    return torch.tensor([[float(ord(letter))] * 3 for letter in f"{text}."]).half()


def test_captions_are_padded_cut_and_hidden(cached, tmp_path):
    cache_captions(["ab", "abcdef", "ab"], states, tmp_path)
    captions = Captions(tmp_path, 4)
    tokens, mask = captions("ab")
    assert mask.tolist() == [True, True, True, False] and torch.equal(tokens[:3], states("ab")) and not tokens[3].any()
    tokens, mask = captions("abcdef")
    assert mask.all() and torch.equal(tokens, states("abcdef")[:4])
    with pytest.raises(UserError, match="'other' was not prepared"):
        captions("other")
    images = [(0, Told("x", None, ("ab", "abcdef")))]
    _, data, out = cached
    for dropout, expected in ((0.0, {2 + 1, 4}), (1.0, {1})):
        samples = LatentDataset(images, Latents(out), captions, data.model_copy(update={"dropout": dropout}), SCALE, 99, True)
        assert {int(samples[Draw(0, epoch, 0, 0)]["mask"].sum()) for epoch in range(20)} == expected


def test_an_autoencoder_that_does_not_fit_is_told(tmp_path):
    assert unfit(VAE, 4, 8) == []
    assert len(unfit(VAE, 8, 4)) == 2
    assert "config.json is not there" in unfit(tmp_path, 4, 4)[0]
    (tmp_path / "config.json").write_bytes((VAE / "config.json").read_bytes())
    with pytest.raises(UserError, match="cannot be read as AutoencoderKL"):
        Autoencoder(tmp_path, CPU, slicing=False)
