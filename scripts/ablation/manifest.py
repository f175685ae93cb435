"""``manifest.json`` of a run: where its numbers come from. No secrets, no user's paths: those are in ``run.yaml`` alone.

============== =====================================================================================================
schema         see :mod:`ablation.formats`; 1 had only ``written`` to ``slurm_job``, of these
run, study     names
settings       all that was decided for the run when it was trained: ``axes``, ``strategy``, ``settings``; evaluation
               and compute are the latest job's: they may change without training again. A path outside the project is
               ``<outside>``
objective      the version of what was minimised (:meth:`ablation.settings.Settings.objective`); without it, 1
settings_sha256 of the canonical JSON of ``run.yaml``, with all its paths
inputs         ``weights``: what for -> file name -> ``{sha256, bytes}``; ``data``: id of the prepared part -> SHA-256 of its
               seal, which holds the checksums of its files
written        when training began, this time (UTC, as all times)
code           ``commit``, ``changed`` since, ``diff_sha256`` of ``git diff HEAD``; ``program_sha256`` of ``scripts/**/*.py``
python, packages, system, libc, cpu, cpu_capability     versions and names; what PyTorch's kernels were chosen for
arithmetic     a hash of how the processor rounds (:mod:`ablation.arithmetic`); manifests from before it was there have none
deterministic  whether PyTorch was told to be
device         ``type`` (cpu or cuda), ``threads`` a process; of a GPU ``name``, ``memory_gib``, ``compute_capability``,
               ``cuda``, ``cudnn``, ``driver``
host, slurm_job, slurm_array, slurm_partition           where; None without SLURM
attempts       each ``{begin, end, how, energy_j, packed}``; ``end`` is None and ``how`` killed where nothing more was heard;
               ``packed``: the most jobs on its GPU at a time (runs by ``compute.pack``, or a neighbour)
times          ``begin`` of the first attempt, ``end`` of the last, by the wall clock; ``seconds`` of all that ended, by
               the monotonic clock; None where it is not recorded and the wall clock ran backwards
energy_j       of its GPUs over all attempts, in J; None where a GPU or an attempt does not tell, on several nodes, on a CPU,
               or beside others
files          what was saved and can be made again: path in the run's folder -> SHA-256; ``history.csv``, and
               ``adapter/*`` or ``model.safetensors`` of a run that was completed
============== =====================================================================================================
"""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablation.canonical import short_hash
from ablation.errors import UserError
from ablation.files import digest, write_text
from ablation.formats import KEY, SCHEMA, check
from ablation.seal import FILE as SEAL
from ablation.seal import files_of
from ablation.sweep import Run

log = logging.getLogger(__name__)

OUTSIDE = "<outside>"
CARD = "README.md"  # of an adapter: written about it, later too
LARGE = 2**31  # bytes; to read more takes seconds, which is said
A_PLACE = re.compile(r"(?:^|[^\w.*+-])[/~\\]|(?:^|/)\.\.(?:/|$)|^\w:\\")


def manifest_of(
    run: Run,
    surroundings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    attempts: Sequence[Mapping[str, Any]],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """The whole manifest, from what :mod:`ablation.provenance`, :func:`inputs_of`, the journal and :func:`files_in` say."""
    counted = surroundings["device"]["type"] == "cuda" and run.settings.compute.nodes == 1  # of other nodes nothing is known
    told = [
        {
            "begin": _utc(one["begin"]),
            "end": _utc(one["end"]),
            "how": one["how"],
            "energy_j": one["energy_j"] if counted else None,
            "packed": one["packed"],
        }
        for one in attempts
    ]
    energies, spans = [one["energy_j"] for one in told], [one["seconds"] for one in attempts if one["end"] is not None]
    return {
        KEY: SCHEMA,
        "run": run.id,
        "study": run.study,
        "settings": settings_of(run),
        "objective": run.objective,
        "settings_sha256": settings_hash(run.training_view),
        "inputs": inputs,
        **surroundings,
        "attempts": told,
        "times": {
            "begin": told[0]["begin"] if told else None,
            "end": told[-1]["end"] if told else None,
            "seconds": None if None in spans else round(sum(spans), 3),
        },
        "energy_j": round(sum(energies), 1) if energies and None not in energies else None,
        "files": files,
    }


def settings_hash(view: Mapping[str, Any]) -> str:
    """The hash of what ``run.yaml`` holds, but for its version."""
    return short_hash({name: value for name, value in view.items() if name != KEY}, 64)


def settings_of(run: Run) -> dict[str, Any]:
    """All that was decided for ``run``, without the places of others."""
    decided = run.settings.model_dump(mode="json", exclude={"title"})
    return without_places({"axes": run.axes, "strategy": run.training_view["strategy"], "settings": decided})


def without_places(value: Any) -> Any:
    """Plain data in which every text that names a place outside the project is ``<outside>``."""
    if isinstance(value, dict):
        return {name: without_places(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    home = os.environ.get("HOME", "")
    hidden = isinstance(value, str) and (A_PLACE.search(value) or (len(home) > 1 and home in value))
    return OUTSIDE if hidden else value


def inputs_of(weights: Mapping[str, Path], data: Sequence[Path], known: Path) -> dict[str, Any]:
    """Hashes of what a run reads. ``known``: a folder that remembers those of weights, which may be large and read by many."""
    return {
        "weights": {name: hashes_of(path, known) for name, path in weights.items()},
        "data": {path.name: digest(path / SEAL) for path in data},
    }


def files_in(folder: Path, saved: str | None) -> dict[str, str]:
    """Hashes of a run's history and, where it ``saved`` something, of that; the card beside an adapter may change."""
    paths = [folder / "history.csv"]
    if saved is not None:
        paths += files_of(folder / saved) if (folder / saved).is_dir() else [folder / saved]
    return {path.relative_to(folder).as_posix(): digest(path) for path in paths if path.name != CARD}


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest of any schema there was. Raises :class:`UserError` for what is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a manifest ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get(KEY), int):
        raise UserError(f"{path}: is no manifest")
    check(path, content[KEY])
    return content


def hashes_of(path: Path, known: Path | None) -> dict[str, Any]:
    """Of a file or a folder, by the names of the files, without the place where they lie. ``known``: see :func:`inputs_of`."""
    files = [(path.name, path)] if path.is_file() else [(file.relative_to(path).as_posix(), file) for file in files_of(path)]
    return {name: {"sha256": _remembered(file, known), "bytes": file.stat().st_size} for name, file in files}


def _remembered(path: Path, known: Path | None) -> str | None:
    """The SHA-256 of a file, computed once for its place, size and time of change; None where it cannot be read."""
    status = path.stat()
    if known is None:
        return digest(path)
    note = known / short_hash([str(path.resolve()), status.st_size, status.st_mtime_ns], 32)
    try:
        return note.read_text(encoding="utf-8")
    except OSError:
        if status.st_size > LARGE:
            log.warning("reading %s (%.1f GiB) once, to know it by its content", path, status.st_size / 2**30)
        found = digest(path)
    if found is None:
        return None
    write_text(note, found)
    return found


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
