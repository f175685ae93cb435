"""Small folders of pictures: by class, with captions, and in COCO's layout."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}


def write_picture(path: Path, colour: str = "red", seed: int = 0, size: tuple[int, int] = (48, 40)) -> None:
    """A noisy field of one colour, brighter on the left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    width, height = size
    field = np.array(COLOURS[colour]) + rng.normal(0, 20, (height, width, 3)) + np.linspace(40, 0, width)[None, :, None]
    Image.fromarray(field.clip(0, 255).astype(np.uint8)).save(path)


def write_classes(root: Path, each: int = 6) -> None:
    """ROOT/CLASS/NUMBER.png."""
    for colour in COLOURS:
        for number in range(each):
            write_picture(root / colour / f"{number}.png", colour, number)


def write_captions(root: Path, count: int = 6) -> None:
    """Pictures and a .txt file beside each."""
    for number in range(count):
        colour = list(COLOURS)[number % 2]
        write_picture(root / f"{number}.jpg", colour, number)
        (root / f"{number}.txt").write_text(f"a {colour} field,\n number {number}")


def write_coco(root: Path, part: str = "val2017", count: int = 4) -> None:
    """Pictures 0, 1, ... of part ``part``, each with a small blue and a large red object and two captions."""
    images = [{"id": 10 + number, "file_name": f"{number:012d}.jpg"} for number in range(count)]
    for number, image in enumerate(images):
        write_picture(root / part / image["file_name"], seed=number)
    objects = [
        {"image_id": image["id"], "category_id": category, "area": area, "iscrowd": 0}
        for image in images
        for category, area in ((7, 10.0), (3, 500.0))
    ]
    texts = [
        {"image_id": image["id"], "caption": f"{text} {image['id']}"} for image in images for text in ("a field", "all red")
    ]
    categories = [{"id": 7, "name": "blue thing"}, {"id": 3, "name": "red thing"}]
    write_annotations(root, "instances", part, {"images": images, "annotations": objects, "categories": categories})
    write_annotations(root, "captions", part, {"images": images, "annotations": texts})


def write_annotations(root: Path, kind: str, part: str, content: object) -> None:
    """ROOT/annotations/KIND_PART.json."""
    path = root / "annotations" / f"{kind}_{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
