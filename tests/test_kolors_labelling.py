"""Asking Qwen2-VL: a small one of the same class with random weights, run for real; interrupted and taken up again."""

import json
import os
from pathlib import Path

import pytest
import torch
from layouts import save_picture, write_table
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Decoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GitConfig,
    GitForCausalLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ablation.errors import UserError
from ablation.systems.kolors.data import labelling
from ablation.systems.kolors.data.answers import question
from ablation.systems.kolors.data.conventions import FAMILIES
from ablation.systems.kolors.data.labeller import Labeller
from ablation.systems.kolors.data.labelling import ANSWERS, label_shard, read_answers, shard_rows
from ablation.systems.kolors.data.layouts import read_layouts
from ablation.systems.kolors.data.quality import QUALITY
from ablation.systems.kolors.data.settings import Data
from ablation.systems.kolors.data.table import read_table
from ablation.systems.kolors.data.validation import examine, labelled
from ablation.systems.kolors.preparation import prepare

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
GOOD = '[{"label": "cat", "bbox": [10, 20, 300, 400]}]'
CPU = torch.device("cpu")
KINDS = {
    "qwen2-vl": (
        Qwen2VLForConditionalGeneration, Qwen2VLConfig, {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 1}, {},
    ),
    "qwen2.5-vl": (
        Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig,
        {"hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 16, "fullatt_block_indexes": [0]}, {},
    ),
    "qwen3-vl": (
        Qwen3VLForConditionalGeneration, Qwen3VLConfig,
        {"hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 16, "deepstack_visual_indexes": [0],
         "num_position_embeddings": 16}, {"patch_size": 16},
    ),
}  # fmt: skip
"""Of each family: network, its settings, sizes of its encoder, what its processor has of its own."""


def save_model(folder: Path, kind: str = "qwen2-vl") -> Path:
    """A model of a few thousand parameters, its tokenizer of bytes and its processor, laid out as the released ones are."""
    letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    bytewise = Tokenizer(BPE(vocab=letters, merges=[]))
    bytewise.pre_tokenizer, bytewise.decoder = ByteLevel(add_prefix_space=False), Decoder()
    tokenizer = Qwen2Tokenizer(tokenizer_object=bytewise, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.save_pretrained(folder)
    network, config, vision, processor = KINDS[kind]
    Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=12_845_056, **processor).save_pretrained(folder)  # as released
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    config = config(
        vision_config={"depth": 1, "num_heads": 2, **vision},
        text_config={
            "vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": None, "head_dim": 16,
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_window_layers": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    network(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small Qwen2-VL."""
    return save_model(tmp_path_factory.mktemp("qwen2-vl"))


@pytest.fixture(scope="module")
def labeller(folder) -> Labeller:
    """The small model; its answers are cut short."""
    labeller = Labeller(folder, CPU)
    labeller.model.generation_config.max_new_tokens = 12
    return labeller


@pytest.fixture
def table(tmp_path) -> Path:
    """Ten pictures, one of them twice, and one that is not there."""
    for number in range(10):
        save_picture(tmp_path / f"images/{number}.png", (32 + 8 * number, 64), seed=number)
    rows = [(f"{number}.png", f"picture {number}") for number in range(10)]
    return write_table(tmp_path / "table.tsv", [*rows, ("3.png", "again"), ("gone.png", "?")])


class Scripted:
    """Answers well; counts what it is asked, and breaks down before the picture ``ends``."""

    def __init__(self, ends: int = 1000):
        self.asked, self.ends = 0, ends

    def __call__(self, pictures):
        if self.asked + len(pictures) > self.ends:
            raise KeyboardInterrupt
        self.asked += len(pictures)
        return [GOOD] * len(pictures)


def label(table: Path, ask, out: Path, shard: int = 0, shards: int = 1) -> dict[str, str]:
    out.mkdir(exist_ok=True)
    label_shard(table, table.parent / "images", shard, shards, lambda: ask, out)
    return read_answers(out / ANSWERS)


class TestModel:
    def test_answers(self, labeller):
        """To pictures of any sizes; the answers of random weights are text, and worth nothing."""
        pictures = [Image.new("RGB", size, "red") for size in ((64, 64), (200, 40), (1, 1))]
        answers = labeller(pictures)
        assert len(answers) == 3 and all(answers)
        assert labeller(pictures) == answers

    def test_together_as_alone(self, labeller):
        """Padding a shorter prompt changes no answer."""
        small, large = Image.new("RGB", (56, 56), "blue"), Image.effect_noise((140, 84), 90).convert("RGB")
        assert labeller([small, large]) == labeller([small]) + labeller([large])

    def test_sees_the_picture(self, labeller):
        """The pixels reach the language model: the first token's scores depend on them."""
        scores = []
        for colour in ("black", "white"):
            with torch.inference_mode():
                scores.append(labeller.model(**labeller.inputs([Image.new("RGB", (56, 56), colour)])).logits[0, -1])
        assert (scores[0] - scores[1]).abs().max() > 1e-4

    def test_places_in_the_picture(self, labeller):
        """The tokens of a picture of 84 x 56 pixels have places in three columns and two rows, those of a text do not."""
        inputs = labeller.inputs([Image.new("RGB", (84, 56))])
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        places, _ = labeller.model.model.get_rope_index(**{name: inputs[name] for name in names})
        of_picture = inputs["mm_token_type_ids"][0].bool()
        _, rows, columns = (places[:, 0, of_picture] - places[:, 0, of_picture].min()).tolist()
        assert (rows, columns) == ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])
        assert (places[:, 0, ~of_picture] == places[0, 0, ~of_picture]).all()

    def test_prompt(self, labeller):
        """Qwen2-VL's own: a token for 28 x 28 pixels between the marks of a picture, then the question."""
        inputs = labeller.inputs([Image.new("RGB", (84, 56))])
        text = labeller.tokenizer.decode(inputs["input_ids"][0])
        asked = question(FAMILIES["qwen2-vl"])
        picture = "<|vision_start|>" + "<|image_pad|>" * 6 + "<|vision_end|>"
        assert (
            f"<|im_start|>user\n{picture}{asked}<|im_end|>\n<|im_start|>assistant\n" in text and inputs["attention_mask"].all()
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_families(self, kind, tmp_path):
        """Each is asked in its own convention, sees the picture in tokens of its own size, and answers."""
        labeller = Labeller(save_model(tmp_path, kind), CPU, FAMILIES[kind])
        labeller.model.generation_config.max_new_tokens = 4
        inputs, side = labeller.inputs([Image.new("RGB", (128, 96))]), 32 if kind == "qwen3-vl" else 28
        text = labeller.tokenizer.decode(inputs["input_ids"][0])
        assert (f'"{FAMILIES[kind].key}": [x1' in text) and (("pixels" in text) == (kind == "qwen2.5-vl"))
        assert int(inputs["mm_token_type_ids"].sum()) == round(128 / side) * round(96 / side)
        assert all(labeller([Image.new("RGB", (128, 96)), Image.new("RGB", (64, 64), "red")]))

    def test_large_pictures_are_made_smaller(self, labeller):
        inputs = labeller.inputs([Image.new("RGB", (3000, 2000))])
        assert 1200 < int(inputs["mm_token_type_ids"].sum()) <= 1280

    def test_no_model(self, tmp_path):
        with pytest.raises(UserError, match="hf download Qwen/Qwen2-VL-7B-Instruct"):
            Labeller(tmp_path, CPU)

    def test_another_model(self, tmp_path):
        """Of a family that would be asked in words it does not know."""
        save_model(tmp_path)
        small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision = {**small, "image_size": 32, "patch_size": 16}
        GitForCausalLM(GitConfig(vision_config=vision, vocab_size=300, **small)).save_pretrained(tmp_path)
        with pytest.raises(UserError, match=r"cannot be read as Qwen2-VL, Qwen2.5-VL or Qwen3-VL \(it is a git\)"):
            Labeller(tmp_path, CPU)

    def test_incomplete_model(self, folder, tmp_path):
        """A missing parameter is an error, not a random number."""
        for file in folder.iterdir():
            os.link(file, tmp_path / file.name)
        model = Qwen2VLForConditionalGeneration.from_pretrained(folder)
        state = {name: value for name, value in model.state_dict().items() if "layers.1.mlp.up_proj" not in name}
        (tmp_path / "model.safetensors").unlink()
        model.save_pretrained(tmp_path, state_dict=state)
        with pytest.raises(UserError, match="lacks 1 parameters"):
            Labeller(tmp_path, CPU)


class TestResuming:
    def test_each_picture_once(self, table, tmp_path):
        """Also where a table names it twice; what cannot be opened is not asked about."""
        ask = Scripted()
        assert list(label(table, ask, tmp_path / "out")) == [f"{number}.png" for number in range(10)]
        assert ask.asked == 10

    def test_takes_up_where_it_stopped(self, table, tmp_path, monkeypatch):
        monkeypatch.setattr(labelling, "AT_ONCE", 2)
        with pytest.raises(KeyboardInterrupt):
            label(table, Scripted(ends=5), tmp_path / "out")
        assert len(read_answers(tmp_path / "out" / ANSWERS)) == 4
        rest = Scripted()
        assert len(label(table, rest, tmp_path / "out")) == 10 and rest.asked == 6

    @pytest.mark.parametrize(
        "torn", [b'{"line": 5, "ima', b'{"line": 5, "image": "4.png", "answer": "[]"}', b"\0" * 40 + b"\n"]
    )
    def test_torn_last_line(self, table, tmp_path, torn):
        """Cut off and asked again, also if only the line break is missing."""
        path = tmp_path / "out" / ANSWERS
        label(table, Scripted(), tmp_path / "out")
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:4]) + torn)
        ask = Scripted()
        assert label(table, ask, tmp_path / "out") == {f"{number}.png": GOOD for number in range(10)} and ask.asked == 6
        assert path.read_bytes().splitlines(keepends=True) == lines

    def test_nothing_left_needs_no_model(self, table, tmp_path):
        label(table, Scripted(), tmp_path / "out")
        label_shard(table, tmp_path / "images", 0, 1, lambda: pytest.fail("the model was loaded"), tmp_path / "out")

    @pytest.mark.parametrize("shards", [1, 2, 3, 7])
    def test_shards(self, table, shards):
        """Each picture falls to one shard, wherever it stands in the table."""
        shares = [[row.image for row in shard_rows(read_table(table), shard, shards)] for shard in range(shards)]
        assert sorted(image for share in shares for image in share) == sorted([*(f"{n}.png" for n in range(10)), "gone.png"])
        moved = sorted(read_table(table), reverse=True)
        again = [{row.image for row in shard_rows(moved, shard, shards)} for shard in range(shards)]
        assert again == [set(share) for share in shares]


def test_from_the_table_to_layouts(table, folder, tmp_path, monkeypatch):
    """The parts that settings declare, made with the small model: its garbage is counted; good answers give layouts."""
    monkeypatch.setattr("ablation.systems.kolors.data.labeller.LONGEST", 8)
    images = tmp_path / "images"
    data = Data(root=str(images), labelled={"table": str(table), "labeller": str(folder), "shards": 2})
    layouts, _ = data.parts("vae", 4)
    shards = []
    for need in layouts.needs:
        shards.append(tmp_path / need.id)
        shards[-1].mkdir()
        prepare(need, [], shards[-1])
    answers = [line for shard in shards for line in (shard / ANSWERS).read_text().splitlines()]
    assert len(answers) == 10
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none of the 12 rows can be used\n  absent image: 1\n  malformed answer: 11"):
        prepare(layouts, shards, tmp_path / "none")
    assert json.loads((tmp_path / "none" / QUALITY).read_text())["causes"]["absent image"]["lines"] == [12]
    good = [{**json.loads(line), "answer": GOOD} for line in answers]
    (shards[0] / ANSWERS).write_text("".join(json.dumps(answer) + "\n" for answer in good))
    (tmp_path / "some").mkdir()
    prepare(layouts, shards[:1], tmp_path / "some")
    assert len(read_layouts(tmp_path / "some")) == 11
    found = examine(labelled(table, {"1.png": GOOD}), images)
    assert [layout.image for layout in found.layouts] == ["1.png"]
