"""A folder of images: ROOT/CLASS/IMAGE, or images with captions, in a metadata file or in a .txt file beside each.

The folders `train`, `val`, `validation` and `test`, as data sets on the Hugging Face Hub and ImageNet have them, are no
classes: what lies in them is read as if it lay in ROOT, since a study makes its own split. Hidden files are counted.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from ablation.errors import UserError
from ablation.outside import read_text
from ablation.systems.dit.data.metadata import FILES, captions_in
from ablation.systems.dit.data.told import CAPTION_LENGTH, Candidates, Fault, Told, caption
from ablation.systems.opening import SUFFIXES

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "valid", "validation", "test")
LONGEST = 4 * CAPTION_LENGTH  # bytes of a caption's file
SHOWN = 20  # classes that are told with their numbers of images


def folder_images(root: Path, condition: str) -> Candidates:
    """The images below ``root`` with what is told of them."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}")
    if condition == "class":
        return _by_class(root)
    found = _by_caption(root)
    if not found.images:
        raise UserError(f"data.root: no image below {root} has a caption, in {' or '.join(FILES)}, or in a .txt file beside it")
    return found


def _by_class(root: Path) -> Candidates:
    tops = [path for path in sorted(root.iterdir()) if path.is_dir() and not _is_hidden(path.name)]
    parents = _splits(root, tops) or [root]
    files: dict[str, list[Path]] = {}
    for parent in parents:
        for folder in (path for path in sorted(parent.iterdir()) if path.is_dir() and not _is_hidden(path.name)):
            files.setdefault(folder.name, []).extend(sorted(_pictures(folder)))
    classes = sorted(name for name, pictures in files.items() if pictures)
    _check_classes(root, classes, files)
    told = ", ".join(f"{name} {len(files[name])}" for name in classes[:SHOWN]) + ", ..." * (len(classes) > SHOWN)
    log.info("%d classes, each with its images: %s", len(classes), told)
    images = [Told(path.relative_to(root).as_posix(), label) for label, name in enumerate(classes) for path in files[name]]
    stray = [path for parent in {root, *parents} for path in sorted(parent.iterdir()) if _is_picture(path)]
    faults = [Fault(path.relative_to(root).as_posix(), "in no folder of a class") for path in sorted(stray)]
    return Candidates(images, classes, [*faults, *_hidden(root)])


def _splits(root: Path, tops: Sequence[Path]) -> list[Path]:
    """The folders that are splits, where all are, and hold classes."""
    named = [path for path in tops if path.name.lower() in SPLITS]
    if not named or len(named) < sum(1 for path in tops if next(_pictures(path), None)):
        if named:
            log.warning("%s: %s is read as a class like the others", root, ", ".join(path.name for path in named))
        return []
    if any(_is_picture(path) for folder in named for path in folder.iterdir()):
        raise UserError(
            f"data.root: the folders of {root} are {', '.join(path.name for path in named)}, which are no classes, and images"
            " lie straight in them; a class is a folder: ROOT/CLASS/IMAGE.jpg, or ROOT/train/CLASS/IMAGE.jpg"
        )
    log.warning("%s: %s are splits, no classes; their images are taken together", root, ", ".join(path.name for path in named))
    return named


def _check_classes(root: Path, classes: Sequence[str], files: dict[str, list[Path]]) -> None:
    if not classes:
        raise UserError(f"data.root: {root} has no folder of images; a class is a folder: {root}/CLASS/IMAGE.jpg")
    only = root / classes[0]
    deeper = {path.relative_to(only).parts[0]: None for path in files[classes[0]] if path.is_relative_to(only)}
    if len(classes) == 1 and len(deeper) > 1 and not any(path.parent == only for path in files[classes[0]]):
        inner = ", ".join([*deeper][:SHOWN])
        raise UserError(
            f"data.root: all images of {root} lie in {classes[0]}, which would be the only class; is data.root: {only}"
            f" meant, with the classes {inner}?"
        )


def _by_caption(root: Path) -> Candidates:
    """Of the metadata files below ``root``, each for its own folder; an image that none of them names has its .txt file."""
    listings = [path for name in FILES for path in sorted(root.rglob(name)) if not _hides(root, path)]
    captions, faults = captions_in(root, listings)
    for path in sorted(_pictures(root)):
        file = path.relative_to(root).as_posix()
        if file not in captions:
            text, reason = _read_caption(path.with_suffix(".txt"))
            if text:
                captions[file] = [text]
            else:
                faults.append(Fault(file, reason))
    images = [Told(file, None, tuple(texts)) for file, texts in sorted(captions.items())]
    return Candidates(images, [], [*faults, *_hidden(root)])


def _read_caption(path: Path) -> tuple[str | None, str]:
    """The caption in a text file, or why there is none."""
    if not path.is_file():
        return None, "no caption"
    try:
        text = caption(read_text(path, LONGEST))
    except UserError as error:
        return None, "a caption that is not UTF-8" if "UTF-8" in str(error) else "no caption"
    return text, "no caption"


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if _is_picture(path) and not _hides(folder, path))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not _is_hidden(path.name)


def _is_hidden(name: str) -> bool:
    """As ``.ipynb_checkpoints``, ``__MACOSX`` and ``._image.jpg`` are."""
    return name.startswith((".", "__"))


def _hides(root: Path, path: Path) -> bool:
    return any(map(_is_hidden, path.relative_to(root).parts))


def _hidden(root: Path) -> list[Fault]:
    found = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES and _hides(root, path))
    return [Fault(path.relative_to(root).as_posix(), "hidden") for path in found]
