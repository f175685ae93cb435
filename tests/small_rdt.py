"""RDT made tiny: a study, encoders in the layout of the released folders, recorded episodes with their embeddings."""

import io
import json
from pathlib import Path

import sentencepiece
import torch
from conftest import ROOT
from transformers import SiglipVisionConfig, SiglipVisionModel, T5Config, T5EncoderModel

from ablation.systems.rdt import preparation
from ablation.systems.rdt.settings import SystemSettings

STUDY = ROOT / "config/studies/rdt-batch.yaml"
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SIGLIP = {**TOWER, "image_size": 32, "patch_size": 8}
T5 = {"vocab_size": 200, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
SENTENCES = ["Reach for the red block.", "Move the right hand over the red block on the table and keep it there."]


def spiece(folder: Path) -> None:
    """A real SentencePiece model, which is what the released T5 folders hold."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, vocab_size=60, hard_vocab_limit=False, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))


def make_encoders(root: Path) -> dict[str, str]:
    """Small encoders of the released classes."""
    torch.manual_seed(0)
    T5EncoderModel(T5Config(**T5)).save_pretrained(str(root / "t5"))
    spiece(root / "t5")
    SiglipVisionModel(SiglipVisionConfig(**SIGLIP)).save_pretrained(str(root / "siglip"))
    return {"text": str(root / "t5"), "image": str(root / "siglip")}


def changes(encoders, **more) -> dict:
    """The demo study made tiny."""
    images = {"patches": 16}
    architecture = {"hidden_size": 32, "depth": 2, "heads": 2, "lang_dim": 24, "img_dim": 16, "images": images}
    return {
        "data": {"simulation": {"episodes": 6}, "image_size": 32, "text_length": 96, "test": 0.3, **more.pop("data", {})},
        "model": {"encoders": encoders, "architecture": {**architecture, "lang_length": 100}},
        "evaluation": {"samples": 10, "batch": 4, "rollouts": 2, "pictures": 1},
        **more,
    }


def prepare(settings: SystemSettings, root: Path) -> list[Path]:
    """Make the parts in order; the first is needed by the others."""
    folders = []
    for part in settings.parts():
        (root / part.id).mkdir(parents=True)
        preparation.prepare(part, [root / need.id for need in part.needs], root / part.id)
        folders.append(root / part.id)
    return folders
