"""What the trainer and the predictor need of a model family, and nothing more."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ablation.prefix.cache import Cache
    from ablation.settings import Settings


class Draw(NamedTuple):
    """Which sample, and the numbers its randomness is a pure function of. ``step`` of the epoch: what its samples share."""

    seed: int
    epoch: int
    step: int
    index: int


class Objective(NamedTuple):
    """One loss to go backward from, and its parts for the record (detached scalars)."""

    loss: "Tensor"
    parts: dict[str, "Tensor"]


class Samples(Protocol):
    """A data set whose samples are pure functions of a :class:`Draw`."""

    def __len__(self) -> int: ...

    def __getitem__(self, draw: Draw) -> dict[str, "Tensor"]: ...

    def groups(self) -> list[int]:
        """For each sample a number; only samples of one number share a batch."""
        ...


class SharedSamples(Samples, Protocol):
    """Samples of which a frozen part of the network sees a tensor that many draws have in common."""

    def alike(self, draw: Draw) -> tuple[int, ...]:
        """Draws of which this is the same have the same tensor."""
        ...


class Evaluation(NamedTuple):
    """What evaluation found: overall metrics, the same for each item (a scene, say), and what the numbers mean."""

    metrics: dict[str, float]
    items: list[dict[str, Any]]
    notes: dict[str, str]


class SharingSystem(Protocol):
    """What a system has beside the rest if it can start from what a frozen part of its network has made of the inputs."""

    cache: "Cache | None"
    """What was made before; None: nothing."""

    prefix_input: str
    """The tensor of a sample that the frozen part sees, and no more than that."""

    def prefix(self, model: "nn.Module", value: "Tensor", cuts: Sequence[int]) -> dict[int, dict[str, "Tensor"]]:
        """The outputs at each of ``cuts`` (:meth:`Settings.prefix_cut`) of one input, with a first axis for the batch.

        Bit by bit those of the forward pass, on which the rest of the batch has no influence.
        """
        ...


class System(Protocol):
    """One model family, with the settings of one run."""

    settings: "Settings"

    fp32_modules: Sequence[str]
    """Prefixes of modules that compute in fp32 whatever the precision of the run."""

    objectives: tuple[str, ...]
    """Names of the losses of a step, in order. Each may train other parameters."""

    def build(self) -> "nn.Module":
        """The network with fresh weights, on the current default device (``meta`` included)."""
        ...

    def load_weights(self, model: "nn.Module", files: dict[str, Path]) -> None:
        """Fill ``model`` from pretrained files, strictly by name. Raises UserError naming file and parameters."""
        ...

    def recomputable(self, model: "nn.Module") -> "Sequence[nn.Module]":
        """The modules whose activations may be recomputed, none within another, in the order of the forward pass.

        Not what ends it, or that is called as :func:`ablation.ending.ending`: the backward pass begins with it.
        """
        ...

    def samples(self, folders: Sequence[Path], train: bool) -> Samples:
        """The data of one split, from prepared folders in the order of ``settings.parts()``."""
        ...

    def fake_batch(self, batch: int) -> dict[str, "Tensor"]:
        """Random tensors of the shapes and types of the largest training batch of ``batch`` samples, on the default device."""
        ...

    def objective(self, model: "nn.Module", batch: dict[str, "Tensor"], name: str) -> Objective:
        """One of the losses of a batch: alone, so that it can go backward before the next is built."""
        ...

    def evaluate(self, model: "nn.Module", folders: Sequence[Path], out: Path, device: "Any") -> Evaluation:
        """Judge ``model`` on the held-out data; pictures go to the folder ``out``, which is there."""
        ...

    def preview(self, model: "nn.Module", folders: Sequence[Path], out: Path, device: "Any") -> dict[str, float]:
        """What ``model`` makes of held-out data at this point of its training: files in ``out``, and a few numbers. Quick."""
        ...

    def missing(self) -> list[str]:
        """What the run needs and does not find: data, weights; a line each, with what to do."""
        ...
