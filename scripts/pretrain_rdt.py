"""Make what the demo of RDT starts from: two small encoders, and a small RDT that knows its task at home.

The committed files ``resources/rdt-demo*`` came from ``make pretrain-rdt`` (25 minutes on one CPU core).

- ``rdt-demo-t5``: a T5 of random weights, which tells words apart and knows nothing of them.
- ``rdt-demo-siglip``: a SigLIP image tower that learnt to point at blocks of many colours.
- ``rdt-demo.safetensors``: an RDT that learnt from the expert's demonstrations on the side ``home``.

All weights are written in fp16.
"""

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from math import log
from pathlib import Path
from string import ascii_letters, punctuation

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel, SiglipVisionConfig, SiglipVisionModel, T5Config, T5EncoderModel, T5Tokenizer

from ablation.cli import call
from ablation.settings import Settings
from ablation.study import load_study
from ablation.systems.rdt.data.augment import augmented
from ablation.systems.rdt.data.images import fitted, pasted
from ablation.systems.rdt.settings import Augment, SystemSettings
from ablation.systems.rdt.simulation.camera import CAMERAS, HEIGHT, WIDTH, picture
from ablation.systems.rdt.simulation.expert import plan
from ablation.systems.rdt.simulation.task import COLOURS, SIDES, instructions
from ablation.systems.rdt.simulation.world import JOINTS, World
from ablation.systems.rdt.system import System
from ablation.training.order import Split, loader

STUDY = Path(__file__).parent.parent / "config/studies/rdt-batch.yaml"
PALETTE = {
    **COLOURS,
    "orange": (0.95, 0.5, 0.05),
    "purple": (0.5, 0.1, 0.6),
    "white": (0.95, 0.95, 0.95),
    "black": (0.05, 0.05, 0.05),
}
"""Colours of blocks that the image tower learns; SigLIP has seen all there are."""


# --- the text encoder ------------------------------------------------------------------------------------------------


def write_text_encoder(folder: Path, dim: int) -> None:
    """A T5 encoder of random weights, and a tokenizer that knows the words of all instructions, and letters for others."""
    texts = (text for colour in PALETTE for kind in instructions(colour).values() for text in _listed(kind))
    words = Counter(re.sub(r"^(?=\w)", "▁", word) for text in texts for word in re.findall(r"\w+|[^\w\s]", text))
    rare = -log(100 * words.total())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(word, log(count / words.total())) for word, count in sorted(words.items())]
    pieces += [(letter, rare) for letter in ("▁", *ascii_letters, *punctuation) if letter not in words]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.save_pretrained(str(folder))
    config = T5Config(
        vocab_size=len(tokenizer), d_model=dim, d_kv=16, d_ff=2 * dim, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    _save_encoder(T5EncoderModel(config), folder)


def _listed(kind: str | list[str]) -> list[str]:
    return [kind] if isinstance(kind, str) else kind


# --- the image tower -------------------------------------------------------------------------------------------------


class Pointer(nn.Module):
    """An image tower, and what its tokens must say: which patch shows a block of a colour, and where its middle is."""

    def __init__(self, tower: SiglipVisionModel):
        super().__init__()
        config = tower.config
        self.tower = tower
        self.colour = nn.Linear(config.hidden_size, len(PALETTE))
        self.offset = nn.Linear(config.hidden_size, 2)
        side = config.image_size // config.patch_size
        middles = (torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1) + 0.5) / side
        self.register_buffer("middles", middles.flatten(0, 1))

    def forward(self, images: Tensor, colours: Tensor) -> Tensor:
        """``images`` [N, 3, S, S], uint8; the numbers of two ``colours`` [N, 2] -> row and column in [0, 1] [N, 2, 2]."""
        tokens = self.tower(images.float() / 127.5 - 1).last_hidden_state
        logits = self.colour(tokens).mT.gather(1, colours[..., None].expand(-1, -1, tokens.shape[1]))
        return logits.softmax(-1) @ (self.middles + self.offset(tokens))


def write_image_encoder(folder: Path, dim: int, size: int, patches: int, scenes: int, steps: int, batch: int) -> None:
    """Train the tower to point at blocks, and write it."""
    config = SiglipVisionConfig(
        hidden_size=dim, intermediate_size=4 * dim, num_hidden_layers=2, num_attention_heads=4, image_size=size,
        patch_size=size // round(patches**0.5), vision_use_head=False,
    )  # fmt: skip
    pointer = Pointer(SiglipVisionModel(config))
    images, colours, middles, seen = (torch.from_numpy(values) for values in render_scenes(scenes, size))
    rng = np.random.default_rng(0)

    def loss() -> Tensor:
        which = torch.from_numpy(rng.integers(len(images), size=batch))
        errors = (pointer(images[which], colours[which]) - middles[which]).abs().sum(-1)
        return (errors * seen[which]).sum() / seen[which].sum()

    train(pointer, loss, steps, 2e-3, "pretraining the image tower")
    _save_encoder(pointer.tower, folder)


def render_scenes(count: int, size: int) -> tuple[NDArray, ...]:
    """Images [N, 3, S, S]; of the two blocks in each the colours [N, 2], the middles [N, 2, 2], and whether seen [N, 2]."""
    rng, augment = np.random.default_rng(1), Augment(blur=0.5)
    worlds = [World(side) for side in SIDES]
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
        for camera in CAMERAS:
            image = fitted(picture(world, camera), size)
            image = augmented(rng, augment, image) if rng.random() < 0.5 else image
            places = np.stack([project(world, camera, block) for block in range(2)])
            seen = ((places > 0) & (places < 1)).all(-1)
            rows.append((pasted(image, size, (127, 127, 127)).numpy(), colours, places.astype(np.float32), seen))
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def project(world: World, camera: str, block: int) -> NDArray[np.float64]:
    """Row and column, in [0, 1] of the square image with its borders, of a block's middle; negative where it lies behind."""
    eye = world.data.camera(camera)
    x, y, z = eye.xmat.reshape(3, 3).T @ (world.data.body(f"block_{block}").xpos - eye.xpos)
    focal = HEIGHT / 2 / np.tan(np.radians(world.model.camera(camera).fovy[0]) / 2)
    return np.array([y, -x]) * focal / z / WIDTH + 0.5 if z < 0 else np.array([-1.0, -1.0])


# --- the policy ------------------------------------------------------------------------------------------------------


def write_policy(path: Path, settings: SystemSettings, folders: Sequence[Path], steps: int, batch: int) -> nn.Module:
    """Train RDT on prepared demonstrations, as the workflow trains it, and write it."""
    system = System(settings)
    model, samples = system.build(), system.samples(folders, train=True)
    batches = iter(loader(samples, Split(batch), seed=0, start=0, stop=steps, workers=0, pin=False))

    def loss() -> Tensor:
        (objective,) = system.objectives(model, next(batches))
        return objective.loss

    train(model, loss, steps, 1e-3, "pretraining RDT")
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
                System.prepare(part, [made[need.id] for need in part.needs], made[part.id])
    return [made[part.id] for part in settings.parts()]


# --- both ------------------------------------------------------------------------------------------------------------


def train(model: nn.Module, loss, steps: int, lr: float, what: str) -> None:
    """AdamW with one cycle of the learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.05, cycle_momentum=False)
    average = None
    progress = tqdm(range(steps), desc=what)
    for step in progress:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average = value.item() if average is None else 0.98 * average + 0.02 * value.item()
        if step % 50 == 49:
            progress.set_postfix(loss=f"{average:.5f}")


def _save_encoder(model: PreTrainedModel, folder: Path) -> None:
    model.half().save_pretrained(str(folder))


def main() -> None:
    """Encoders, demonstrations, policy; then try it out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder, such as resources")
    parser.add_argument("--scenes", type=int, default=4000, help="that the image tower is trained on")
    parser.add_argument("--tower-steps", type=int, default=2000)
    parser.add_argument("--episodes", type=int, default=500, help="that RDT is trained on")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    text, image, policy = (args.output / f"rdt-demo{end}" for end in ("-t5", "-siglip", ".safetensors"))
    simulation = {"side": "home", "episodes": args.episodes}
    changes = {"data": {"simulation": simulation}, "model": {"encoders": {"text": str(text), "image": str(image)}}}
    settings = load_study(STUDY, {"scale": "demo", **changes})
    sizes = settings.model.architecture

    torch.manual_seed(0)
    write_text_encoder(text, sizes.lang_dim)
    size, patches = settings.data.image_size, sizes.images.patches
    write_image_encoder(image, sizes.img_dim, size, patches, args.scenes, args.tower_steps, args.batch)
    with tempfile.TemporaryDirectory() as work:
        folders = prepare(settings, Path(work))
        model = write_policy(policy, settings, folders, args.steps, args.batch).eval()
        found = System(settings).evaluate(model, folders, Path(work), torch.device("cpu"))
    print({name: round(value, 4) for name, value in found.metrics.items()}, found.notes)


if __name__ == "__main__":
    call(main)
