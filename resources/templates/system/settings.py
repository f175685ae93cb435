"""The settings of the ``newsystem`` system. Light to import: neither torch nor pandas."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from ablation.parts import Part
from ablation.settings import Depth, Metric, Settings, Size, Strict


class Data(Strict):
    """What it learns from. Here waves that it makes itself; with files of yours, a `root: Place` says where they are."""

    waves: Size = 4096
    """Waves that are made."""
    length: Size = 256
    """Values of a wave."""
    noise: Annotated[float, Field(gt=0, le=10)] = 0.5
    """Standard deviation of the noise to be removed; the waves' own is about one."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the waves that is kept for evaluation."""


class Model(Strict):
    """Sizes of the network. Pretrained weights are a `weights: Place` here, which `weight_files` names."""

    width: Size = 512
    """Width of the blocks."""
    depth: Depth = 8
    """Blocks."""


class Evaluation(Strict):
    """How the trained model is judged. Changing this evaluates again and trains nothing."""

    batch: Size = 64
    """Waves at once."""


class SystemSettings(Settings):
    """A network that removes noise from waves."""

    system: Literal["newsystem"]
    """A small network that removes noise from waves: to be replaced by yours."""
    data: Data = Data()
    """The waves."""
    model: Model = Model()
    """The network."""
    evaluation: Evaluation = Evaluation()
    """How the trained model is judged."""

    def weight_files(self) -> dict[str, str]:
        """Pretrained weights that a run reads: what for -> path. None: it begins from random ones."""
        return {}

    def parts(self) -> list[Part]:
        """The prepared data that a run reads. A part is made anew when the settings named here change, and only then."""
        return [Part("waves", "made", self.data.model_dump(mode="json", include={"waves", "length"}))]

    def metrics(self) -> list[Metric]:
        """What :meth:`System.evaluate` gives, the most important one first."""
        return [Metric("error", "mean squared error", "", True, 4)]

    def facts(self) -> dict[str, Callable[..., float | None]]:
        """Counts that a published claim can be about: functions of what the claim's ``where`` names."""
        return {"waves": lambda: float(self.data.waves)}
