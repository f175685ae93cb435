"""The settings of the ``kolors`` system's data: pictures with captions, and boxes with labels on them."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ablation.parts import Part
from ablation.settings import Place, Strict


class Labelled(Strict):
    """Boxes that a vision-language model is asked for."""

    table: Place = "data/kolors/captions.tsv"
    """UTF-8 text, a line a picture: its path below `root`, a tab, its caption. Quotes mean nothing."""
    labeller: Place = "models/Qwen2-VL-7B-Instruct"
    """Folder of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL in the layout of transformers."""
    convention: Literal["qwen2-vl", "qwen2.5-vl", "qwen3-vl"] = "qwen2-vl"
    """How it is asked for boxes and answers: `bbox` in thousandths, `bbox_2d` in pixels as it sees them, in thousandths."""
    shards: Annotated[int, Field(ge=1, le=1000)] = 1
    """Jobs that share the pictures, each on a GPU of its own."""


class Collages(Strict):
    """Pictures that the workflow makes itself: cut-out photographs at known places."""

    photographs: Place = "resources/photographs"
    """Folder of the photographs."""
    count: PositiveInt = 600
    """Pictures to make."""
    seed: NonNegativeInt = 0
    """Of objects, places and backgrounds."""


class Data(Strict):
    """Pictures with captions and boxes, and how they become samples."""

    source: Literal["labelled", "layouts", "collages"] = "labelled"
    """labelled: a table of captions, boxes by a vision-language model; layouts: a file with boxes; collages: made here."""
    root: Place = "data/kolors/images"
    """Folder of the pictures (sources labelled and layouts)."""
    labelled: Labelled = Labelled()
    """Where captions and boxes come from (source labelled)."""
    layouts: Place = "data/kolors/layouts.jsonl"
    """A JSON object a line: image, caption, boxes (source layouts)."""
    layouts_convention: Literal["thousandths", "pixels", "pixels_xywh", "shares"] | None = None
    """Unit of its boxes; `pixels_xywh` is COCO's. Null: thousandths, refused where they look like pixels."""
    collages: Collages = Collages()
    """What is made (source collages)."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the pictures that is kept for evaluation."""
    resolution: Annotated[int, Field(ge=8, multiple_of=8)] = 1024
    """Side of the square that is cut from a picture, in pixels."""
    text_length: Annotated[int, Field(ge=3)] = 256
    """Tokens of a caption, with the two that ChatGLM begins with; a longer one is cut."""
    label_length: PositiveInt = 8
    """Tokens of a label; a longer one is cut."""
    max_boxes: PositiveInt = 30
    """Boxes of a sample; of more, the largest are taken."""

    def outside(self) -> list[str]:
        """Files and folders that the workflow reads and does not make."""
        return {
            "labelled": [self.root, self.labelled.table, self.labelled.labeller],
            "layouts": [self.root, self.layouts],
            "collages": [self.collages.photographs],
        }[self.source]

    def parts(self, vae: str, mem_gib: int) -> list[Part]:
        """The layouts, then the latents of their pictures; ``vae`` is the autoencoder's folder."""
        layouts = self._layouts(mem_gib)
        latents = {"vae": vae, "resolution": self.resolution}
        return [layouts, Part("latents", self.source, latents, (layouts,), gpus=1, mem_gib=mem_gib, resumable=True)]

    def _layouts(self, mem_gib: int) -> Part:
        root = {"root": str(PurePosixPath(self.root))}
        if self.source == "collages":
            return Part("layouts", "collages", {**self.collages.model_dump(), "size": self.resolution})
        if self.source == "layouts":
            return Part("layouts", "layouts", {**root, "layouts": self.layouts, **_said(self, "layouts_convention")})
        asked, shards = self.labelled, self.labelled.shards
        convention = _said(asked, "convention")
        shared = {**root, "table": asked.table, "labeller": asked.labeller, "shards": shards, **convention}
        labels = tuple(
            Part("labels", f"{shard}-of-{shards}", {**shared, "shard": shard}, gpus=1, mem_gib=mem_gib, resumable=True)
            for shard in range(shards)
        )
        return Part("layouts", "labelled", {**root, "table": asked.table, **convention}, labels)


def _said(settings: Strict, name: str) -> dict[str, str]:
    """A convention, unless it is the default one: what was prepared before there was another stays valid."""
    value = getattr(settings, name)
    return {} if value == type(settings).model_fields[name].default else {"convention": value}
