"""RDT as a policy: what a robot sees and is told becomes its next actions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ablation.systems.rdt.data.images import empty, square
from ablation.systems.rdt.data.tokens import EncodeImages, TextTokens
from ablation.systems.rdt.data.unified import Mapping
from ablation.systems.rdt.diffusion import sample
from ablation.systems.rdt.model.runner import Observation
from ablation.systems.rdt.robots import VIEWS
from ablation.systems.rdt.settings import SystemSettings
from ablation.systems.rdt.simulation.rollout import Observation as Seen


class Policy:
    """Predicts the actions of many robots at once. The noise it starts from is a pure function of episode and step."""

    def __init__(
        self, model: nn.Module, settings: SystemSettings, text: TextTokens, encode: EncodeImages, device: torch.device
    ):
        self.model, self.settings, self.text, self.encode, self.device = model, settings, text, encode, device

    def __call__(self, seen: Sequence[Seen]) -> NDArray[np.float32]:
        """The next actions of N robots [N, H, J], as recorded."""
        a = self.settings.model.architecture
        noise = torch.from_numpy(np.stack([_noise(one, (a.horizon, a.action_dim)) for one in seen]))
        observation = Observation(*(value.to(self.device) for value in self.observe(seen)))
        actions = sample(self.model, observation, noise.to(self.device), self.settings.evaluation.sampling_steps)
        joints = Mapping(self.settings.data.mapping.action).back(actions.flatten(0, 1).cpu().numpy())
        return joints.reshape(len(seen), a.horizon, -1)

    def observe(self, seen: Sequence[Seen]) -> Observation:
        """What the network is told of N robots, as of the recorded steps that it was trained on."""
        told = [self.text(one.instruction) for one in seen]
        mapping = Mapping(self.settings.data.mapping.state)
        states, mask = mapping.to_unified(np.stack([one.qpos for one in seen])), mapping.mask
        return Observation(
            lang_tokens=torch.stack([tokens for tokens, _ in told]),
            lang_mask=torch.stack([counts for _, counts in told]),
            img_tokens=self._look(seen),
            state=torch.from_numpy(states)[:, None],
            action_mask=torch.from_numpy(mask).expand(len(seen), 1, -1),
            frequencies=torch.tensor([one.frequency for one in seen]),
        )

    def _look(self, seen: Sequence[Seen]) -> Tensor:
        """Tokens [N, I, D] of the images of each robot; background where there is none."""
        data, history = self.settings.data, self.settings.model.architecture.images.history
        images = [empty(data.image_size, data.background)]
        places = torch.zeros(len(seen), history, len(VIEWS), dtype=torch.long)
        for number, one in enumerate(seen):
            for age, pictures in enumerate(one.images, start=history - len(one.images)):
                for view, picture in pictures.items():
                    places[number, age, VIEWS.index(view)] = len(images)
                    images.append(square(picture, data.image_size, data.background))
        return self.encode(torch.stack(images))[places].flatten(1, 3)


def _noise(one: Seen, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.random.default_rng([one.number, one.step]).standard_normal(shape, np.float32)
