"""Reading files that nobody has vouched for: no more of them than they may hold, and no error but a UserError naming them."""

import json
from pathlib import Path
from typing import Any

from ablation.errors import UserError

MIB = 2**20


def read_bytes(path: Path, most: int) -> bytes:
    """The content of the file at ``path``, which has ``most`` bytes at most."""
    try:
        if not path.is_file():  # a pipe would be waited for, a device never ends
            raise UserError(f"{path}: there is no such file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > most:
        raise UserError(f"{path}: is larger than {most:,} bytes, which is the most that is read of such a file")
    return content


def read_text(path: Path, most: int) -> str:
    """The same as text, without the mark that Windows puts before UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a UTF-8 text file") from None


def read_json(path: Path, most: int) -> Any:
    """The same as JSON."""
    try:
        return json.loads(read_text(path, most))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({type(error).__name__}: {error}); is it truncated?") from None


def leads_out(root: Path, path: Path) -> bool:
    """Whether ``path``, links followed, is anywhere else than below ``root``."""
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # too long a name, links in a circle, half a character
        return True
