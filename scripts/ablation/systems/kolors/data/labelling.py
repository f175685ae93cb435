"""Asking a vision-language model about every picture of a table, in shares, so that an interruption costs one batch.

``answers.jsonl``: ``{"line": ..., "image": ..., "answer": ...}``, added as it comes, one for each picture that can be opened.
"""

import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ablation.systems.kolors.data.causes import Bad
from ablation.systems.kolors.data.images import place_of, read_image
from ablation.systems.kolors.data.table import Row, read_table

log = logging.getLogger(__name__)

ANSWERS = "answers.jsonl"
AT_ONCE = 4
"""Pictures asked about together; what fits beside Qwen2-VL-7B in 24 GiB."""

Ask = Callable[[Sequence[Image.Image]], list[str]]
"""Pictures -> an answer each."""


def shard_rows(rows: Iterable[tuple[int, Row | Bad]], shard: int, shards: int) -> Iterator[Row]:
    """The first row of each picture that falls to ``shard``: a pure function of its path and the number of ``shards``."""
    seen = set()
    for _, row in rows:
        if not isinstance(row, Bad) and row.image not in seen and zlib.crc32(row.image.encode()) % shards == shard:
            seen.add(row.image)
            yield row


def label_shard(table: Path, root: Path, shard: int, shards: int, load: Callable[[], Ask], out: Path) -> None:
    """Ask about the pictures of a shard that have no answer in ``out`` yet; ``load`` makes the model if there are any."""
    path = out / ANSWERS
    done = read_answers(path)
    waiting = [row for row in shard_rows(read_table(table), shard, shards) if row.image not in done and _is_there(root, row)]
    if not waiting:
        path.touch()
        return
    ask, begun, asked = load(), time.monotonic(), 0
    with path.open("a", encoding="utf-8") as file, tqdm(
        total=len(done) + len(waiting), initial=len(done), desc=f"labelling, shard {shard + 1} of {shards}", unit="image",
        disable=None,
    ) as bar:  # fmt: skip
        for batch in _batches(root, waiting, bar):
            for (row, _), answer in zip(batch, ask([picture for _, picture in batch]), strict=True):
                file.write(json.dumps({"line": row.line, "image": row.image, "answer": answer}) + "\n")
                file.flush()
                bar.update()
            asked += len(batch)
    log.info("asked about %d pictures, %.2f a second", asked, asked / (time.monotonic() - begun))


def read_answers(path: Path) -> dict[str, str]:
    """The answers of a file by picture. What a crash left behind the last whole line is cut off, and asked again."""
    if not path.is_file():
        return {}
    answers, whole = {}, 0
    with path.open("rb") as file:
        for line in file:
            try:
                if not line.endswith(b"\n"):
                    break
                value = json.loads(line)
                answers[value["image"]] = value["answer"]
            except (ValueError, KeyError, TypeError, RecursionError):
                break
            whole += len(line)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    return answers


def _is_there(root: Path, row: Row) -> bool:
    """Validation counts the others."""
    try:
        place_of(root, row.image)
    except Bad:
        return False
    return True


def _batches(root: Path, rows: Sequence[Row], bar: tqdm) -> Iterator[list[tuple[Row, Image.Image]]]:
    """Rows with their pictures; those that cannot be read are passed over, and counted by validation."""

    def readable() -> Iterator[tuple[Row, Image.Image]]:
        for row in rows:
            try:
                yield row, read_image(root, row.image)
            except Bad:
                bar.update()

    pictures = readable()
    while batch := list(islice(pictures, AT_ONCE)):
        yield batch
