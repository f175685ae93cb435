"""What the scripts share: arguments read as JSON or files, and errors as one line instead of a traceback."""

import io
import json
import logging
import os
import resource
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ablation.errors import UserError
from ablation.files import NO_RIGHT, NO_SPACE
from ablation.yamlfile import load_yaml

USER_ERROR = 2
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def call(main: Callable[[], None]) -> None:
    """Run ``main``; a :class:`UserError`, a full disk or host memory becomes a message and exit status 2.

    So does a file that the user has no right to.
    """
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")  # what its character set lacks, as in what is logged
    try:
        main()
    except UserError as error:
        _say(str(error))
    except OSError as error:
        if error.errno in NO_SPACE:
            _say(f"{error.filename or 'writing'}: {error.strerror}; make room and start the workflow again")
        if error.errno in NO_RIGHT and error.filename:
            _say(f"{error.filename}: {error.strerror}: {_whose(error.filename)}")
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_host_full(error):
            raise
        _say(f"host memory is full ({error}); ask for more (compute.mem_gib of the study), or for fewer compute.workers")


def _whose(path: str) -> str:
    """What a user can do who may not read or write ``path``."""
    there = next((one for one in (Path(path), *Path(path).parents) if os.access(one, os.F_OK)), Path("/"))
    user, owner = os.getuid(), there.stat().st_uid
    return (
        f"this is user {user}, and {there} belongs to user {owner}, who can let the group write (umask 002, chmod -R g+w);"
        " or work in a copy of your own"
    )


def is_host_full(error: MemoryError | RuntimeError) -> bool:
    """Whether an error says that the machine, not the GPU, has no memory left."""
    text = str(error)
    if "could not create a primitive" in text:  # oneDNN does not say why; within a limit on the process's memory, that is why
        return any(resource.getrlimit(of)[0] != resource.RLIM_INFINITY for of in (resource.RLIMIT_DATA, resource.RLIMIT_AS))
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "std::bad_alloc" in text


def _say(text: str) -> NoReturn:
    sys.stderr.write(f"error: {text}\n")
    sys.exit(USER_ERROR)


def log_to(path: Path) -> None:
    """Append the log to a file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.getLogger().addHandler(handler)


def json_or_file(text: str) -> Any:
    """A value given as JSON, or as the path of a YAML or JSON file."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ArgumentTypeError(f"not valid JSON: {error}") from None
    return load_yaml(Path(text))


def add_job_arguments(parser: ArgumentParser) -> None:
    """What every job on a model takes: weights, data, and the machine's share."""
    parser.add_argument("--weights", type=named_path, nargs="*", default=[], metavar="NAME=FILE", help="pretrained weights")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of prepared data, in the system's order")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def add_prefix_arguments(parser: ArgumentParser) -> None:
    """What finds the outputs of frozen parts that were computed before."""
    parser.add_argument("--prefixes", type=Path, help="folder of the study's prefix caches; without it, all is computed")
    parser.add_argument("--hashes", type=Path, required=True, help="folder that remembers the hashes of weights")


def named_path(text: str) -> tuple[str, Path]:
    """``name=path``."""
    name, equals, path = text.partition("=")
    if not equals:
        raise ArgumentTypeError(f"{text!r} is not name=path")
    return name, Path(path)


def aligned(rows: Sequence[Sequence[str]], left: Container[int] = (0,)) -> list[str]:
    """Rows as lines with columns of equal width, indented; those numbered in ``left`` begin where the column begins."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def first_on_path(*folders: Path) -> None:
    """Let a shell find the commands of these folders before others of the same name."""
    first = [str(folder) for folder in folders]
    rest = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder not in first]
    os.environ["PATH"] = os.pathsep.join([*first, *rest])
