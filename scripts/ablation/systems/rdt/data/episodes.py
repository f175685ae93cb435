"""All episodes of a folder; bad ones are refused or left out, never silently."""

import logging
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ablation.errors import UserError
from ablation.systems.rdt.data.episode import Episode, Fault, examine
from ablation.systems.rdt.settings import Data

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """The episodes of a folder, by name, and those left out."""

    episodes: list[Episode]
    faults: list[Fault]


def find_episodes(root: Path, data: Data) -> Found:
    """Examine every ``*.hdf5`` file below ``root``. UserError where ``data.bad`` is refuse and one is bad, or none is left."""
    paths = sorted(root.rglob("*.hdf5"))
    if not paths:
        raise UserError(f"data.root: no *.hdf5 file below {root}; put the episodes there, or name their folder")
    examined = [examine(path, data) for path in tqdm(paths, desc="examining episodes", disable=None)]
    found = Found([e for e in examined if isinstance(e, Episode)], [e for e in examined if isinstance(e, Fault)])
    listed = "".join(f"\n  {fault}" for fault in found.faults)
    bad = f"{len(found.faults)} of {len(paths)} episodes are bad"
    if found.faults and data.bad == "refuse":
        raise UserError(f"data.root: {bad}; mend or remove them, or set data.bad: skip{listed}")
    if not found.episodes:
        raise UserError(f"data.root: none of the {len(paths)} episodes below {root} can be used{listed}")
    if found.faults:
        log.warning("%s and left out:%s", bad, listed)
    return found
