"""Make what the demo of RDT starts from: two small encoders, and a small RDT that knows its task at home.

The committed files ``resources/rdt-demo*`` were made by these functions, called one by one, the encoders by an earlier state of
them; ``make pretrain-rdt`` (25 minutes on one CPU core) gives some like them, not the same bits.

- ``rdt-demo-t5``, ``rdt-demo-siglip``: encoders that learnt together to point at the block that a sentence names.
- ``rdt-demo.safetensors``: an RDT that learnt from the expert's demonstrations on the side ``home``.

All weights are written in fp16.
"""

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import count
from math import isqrt, log
from pathlib import Path
from string import ascii_letters, punctuation

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate
from tqdm import tqdm
from transformers import SiglipVisionConfig, SiglipVisionModel, T5Config, T5EncoderModel, T5Tokenizer

from ablation.cli import call
from ablation.pretraining import train
from ablation.settings import Settings
from ablation.study import load_study
from ablation.systems.base import Draw
from ablation.systems.rdt import preparation
from ablation.systems.rdt.data.augment import augmented
from ablation.systems.rdt.data.images import fitted, pasted
from ablation.systems.rdt.settings import Augment, SystemSettings
from ablation.systems.rdt.simulation.camera import CAMERAS, HEIGHT, WIDTH, picture
from ablation.systems.rdt.simulation.expert import plan
from ablation.systems.rdt.simulation.task import COLOURS, SIDES, instructions
from ablation.systems.rdt.simulation.world import JOINTS, World
from ablation.systems.rdt.system import System

STUDY = Path(__file__).parent.parent / "config/studies/rdt-batch.yaml"
PALETTE = {
    **COLOURS,
    "orange": (0.95, 0.5, 0.05),
    "purple": (0.5, 0.1, 0.6),
    "white": (0.95, 0.95, 0.95),
    "black": (0.05, 0.05, 0.05),
}
"""Colours of blocks that the encoders learn; the released ones have seen all there are."""


SHARPNESS, OFFSET = 10.0, 0.1
"""Of pointing: small, so that blocks make a great difference to the tokens, which is what RDT learns from."""


# --- the encoders ----------------------------------------------------------------------------------------------------


class Pointer(nn.Module):
    """Both encoders, and what their tokens must tell together: where the block is that a sentence names."""

    def __init__(self, text: T5EncoderModel, image: SiglipVisionModel):
        super().__init__()
        self.text, self.image = text, image
        self.query = nn.Linear(text.config.d_model, image.config.hidden_size)
        self.offset = nn.Linear(image.config.hidden_size, 2)
        side = image.config.image_size // image.config.patch_size
        middles = (torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1) + 0.5) / side
        self.register_buffer("middles", middles.flatten(0, 1))

    def forward(self, images: Tensor, sentences: Tensor, mask: Tensor) -> Tensor:
        """``images`` [N, 3, S, S], uint8; K ``sentences`` an image as pieces [N, K, L], ``mask`` -> rows, columns [N, K, 2]."""
        tokens = self.image(images.float() / 127.5 - 1).last_hidden_state
        words = self.text(sentences.flatten(0, 1), mask.flatten(0, 1)).last_hidden_state.unflatten(0, sentences.shape[:2])
        sentence = (words * mask[..., None]).sum(2) / mask.sum(2, keepdim=True)
        alike = F.normalize(self.query(sentence), dim=-1) @ F.normalize(tokens, dim=-1).mT
        return (SHARPNESS * alike).softmax(-1) @ (self.middles + OFFSET * self.offset(tokens))


def write_encoders(text: Path, image: Path, settings: SystemSettings, scenes: int, steps: int, batch: int) -> None:
    """Train both to point at blocks, and write them with the tokenizer."""
    a, size = settings.model.architecture, settings.data.image_size
    tokenizer = make_tokenizer()
    t5 = T5Config(
        vocab_size=len(tokenizer), d_model=a.lang_dim, d_kv=16, d_ff=2 * a.lang_dim, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0,
    )  # fmt: skip
    siglip = SiglipVisionConfig(
        hidden_size=a.img_dim, intermediate_size=4 * a.img_dim, num_hidden_layers=2, num_attention_heads=4, image_size=size,
        patch_size=size // isqrt(a.images.patches), vision_use_head=False,
    )  # fmt: skip
    pointer = Pointer(T5EncoderModel(t5), SiglipVisionModel(siglip))
    images, colours, middles, seen = (torch.from_numpy(values) for values in render_scenes(scenes, size))
    told = tokenizer([text for colour in PALETTE for text in sentences(colour)], return_tensors="pt", padding=True)
    of_colour = len(told.input_ids) // len(PALETTE)
    rng = np.random.default_rng(0)

    def loss() -> Tensor:
        which = torch.from_numpy(rng.integers(len(images), size=batch))
        text = colours[which] * of_colour + torch.from_numpy(rng.integers(of_colour, size=(batch, 2)))
        errors = (pointer(images[which], told.input_ids[text], told.attention_mask[text]) - middles[which]).abs().sum(-1)
        return (errors * seen[which]).sum() / seen[which].sum()

    train(pointer, loss, steps, 2e-3, "pretraining the encoders")
    tokenizer.save_pretrained(str(text))
    for encoder, folder in ((pointer.text, text), (pointer.image, image)):
        encoder.half().save_pretrained(str(folder))


def make_tokenizer() -> T5Tokenizer:
    """Knows the words of all instructions, and letters for others."""
    texts = [text for colour in PALETTE for text in sentences(colour)]
    words = Counter(re.sub(r"^(?=\w)", "▁", word) for text in texts for word in re.findall(r"\w+|[^\w\s]", text))
    rare = -log(100 * words.total())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(word, log(count / words.total())) for word, count in sorted(words.items())]
    pieces += [(letter, rare) for letter in ("▁", *ascii_letters, *punctuation) if letter not in words]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def sentences(colour: str) -> list[str]:
    """All instructions that name ``colour``."""
    return [text for kind in instructions(colour).values() for text in ([kind] if isinstance(kind, str) else kind)]


def render_scenes(count: int, size: int) -> tuple[NDArray, ...]:
    """Images [N, 3, S, S]; of the two blocks in each the colours [N, 2], the middles [N, 2, 2], and whether seen [N, 2]."""
    rng, augment = np.random.default_rng(1), Augment(blur=0.5)
    worlds = [World(side) for side in SIDES]
    own_colours = [world.model.geom_rgba.copy() for world in worlds]
    rows = []
    for number in tqdm(range(count), desc="rendering scenes"):
        world = worlds[number % len(worlds)]
        world.reset(1_000_000, number)
        colours = rng.choice(len(PALETTE), 2, replace=False)
        for block, colour in enumerate(colours):
            world.model.geom(f"block_{block}").rgba[:3] = list(PALETTE.values())[colour]
        planned = plan(world)
        world.data.qpos[:JOINTS] = planned[rng.integers(len(planned)), :JOINTS]
        mujoco.mj_fwdPosition(world.model, world.data)
        for view, camera in CAMERAS.items():
            image = fitted(picture(world, view), size)
            image = augmented(rng, augment, image) if rng.random() < 0.5 else image
            places = np.stack([project(world, camera, block) for block in range(2)])
            seen = ((places > 0) & (places < 1)).all(-1)
            rows.append((pasted(image, size, (127, 127, 127)).numpy(), colours, places.astype(np.float32), seen))
    for world, colours in zip(worlds, own_colours, strict=True):
        world.model.geom_rgba[:] = colours  # the model is shared by all worlds of a side
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def project(world: World, camera: str, block: int) -> NDArray[np.float64]:
    """Row and column, in [0, 1] of the square image with its borders, of a block's middle; negative where it lies behind."""
    eye = world.data.camera(camera)
    x, y, z = eye.xmat.reshape(3, 3).T @ (world.data.body(f"block_{block}").xpos - eye.xpos)
    focal = HEIGHT / 2 / np.tan(np.radians(world.model.camera(camera).fovy[0]) / 2)
    return np.array([y, -x]) * focal / z / WIDTH + 0.5 if z < 0 else np.array([-1.0, -1.0])


BEGINNING, LISTENING = 8, 0.25
"""Steps of an episode that count as its beginning; share of the training that sees nothing else."""


# --- the policy ------------------------------------------------------------------------------------------------------


def write_policy(path: Path, settings: SystemSettings, folders: Sequence[Path], steps: int, batch: int) -> nn.Module:
    """Train RDT on prepared demonstrations and write it.

    At first on the beginnings of episodes alone: later the arm is on its way and shows itself which block is meant, and a
    network that has learnt to look there takes long to listen to the instruction.
    """
    system = System(settings)
    model, samples = system.build(), system.samples(folders, train=True)
    beginnings = [index for index in range(len(samples)) if samples.place(index)[1] < BEGINNING]
    rng, numbers = np.random.default_rng(2), count()

    def loss() -> Tensor:
        number = next(numbers)
        chosen = rng.choice(beginnings if number < LISTENING * steps else len(samples), batch)
        drawn = [samples[Draw(seed=0, epoch=number, step=number, index=int(index))] for index in chosen]
        return system.objective(model, default_collate(drawn), *system.objectives).loss

    train(model, loss, steps, 2e-3, "pretraining RDT")
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)
    return model


def prepare(settings: Settings, folder: Path) -> list[Path]:
    """The parts of the prepared data, as the workflow makes them."""
    made: dict[str, Path] = {}
    for leaf in settings.parts():
        for part in reversed(list(leaf.closure())):
            if part.id not in made:
                made[part.id] = folder / part.id
                made[part.id].mkdir()
                preparation.prepare(part, [made[need.id] for need in part.needs], made[part.id])
    return [made[part.id] for part in settings.parts()]


# --- both ------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Encoders, demonstrations, policy; then try it out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder, such as resources")
    parser.add_argument("--scenes", type=int, default=2500, help="that the encoders are trained on")
    parser.add_argument("--encoder-steps", type=int, default=1500)
    parser.add_argument("--episodes", type=int, default=300, help="that RDT is trained on")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    text, image, policy = (args.output / f"rdt-demo{end}" for end in ("-t5", "-siglip", ".safetensors"))
    encoders = {"text": str(text), "image": str(image)}
    data = {"simulation": {"side": "home", "episodes": args.episodes}, "augment": {"share": 0}}
    settings = load_study(STUDY, {"scale": "demo", "data": data, "model": {"encoders": encoders}})

    torch.manual_seed(0)
    write_encoders(text, image, settings, args.scenes, args.encoder_steps, batch=64)
    with tempfile.TemporaryDirectory() as work:
        folders = prepare(settings, Path(work))
        model = write_policy(policy, settings, folders, args.steps, args.batch).eval()
        found = System(settings).evaluate(model, folders, Path(work), torch.device("cpu"))
    print({name: round(value, 4) for name, value in found.metrics.items()}, found.notes)


if __name__ == "__main__":
    call(main)
