"""The version of what the workflow writes under ``results/``: one number for all its files.

It is raised when a file changes its meaning. JSON and YAML hold it under ``schema``, tables in a column of that name. Older
files stay readable: what they lack is not shown. Files before version 4 have numbers of their own, or none.
"""

from numbers import Real
from pathlib import Path
from typing import Any

from ablation.errors import UserError

SCHEMA = 4
KEY = "schema"


def check(path: Path, found: Any) -> None:
    """Raise :class:`UserError` for the version ``found`` in ``path`` if only a later workflow knows it."""
    if isinstance(found, Real) and found > SCHEMA:
        raise UserError(
            f"{path}: written by a later version of the workflow (schema {found:.0f}; this one knows up to {SCHEMA}); update it"
        )
