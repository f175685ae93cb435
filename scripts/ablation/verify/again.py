"""A run and the same run trained again: what is equal, and what was not the same around the two."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablation.errors import UserError
from ablation.manifest import files_in, read_manifest
from ablation.provenance import code_hash
from ablation.verify.differences import FAR, Finding, compare_files, compare_histories, compare_values, flat, same
from ablation.verify.reading import read_record, read_settings

EQUAL, WITHIN, DIFFERS = "equal", "within tolerance", "differs"
TOLERANCE = {"losses": 0.2, "metrics": 0.05, "items": 0.1, "record": 0.05, "memory": 0.02}
"""Relative. Three times what the example's runs A and C were apart at most with PyTorch's plain kernels instead of AVX-512's:
6.2 % in a step's losses, 1.3 % in metrics, 3.3 % in an item; with AVX2's or two threads it was far less. Small differences grow
in training. Memory, as live tensors, was the same.
"""
PLATFORM = ("python", "packages", "libc", "cpu", "cpu_capability", "arithmetic", "deterministic", "device")  # of a manifest
AROUND = ("system", "code")  # told as well, and excuse nothing
TIMED = ("schema", "time", "attempts", "device", "outcome")  # of metrics.json: another each time, or compared elsewhere
OF_ITS_MACHINE = ("peak_resident_gib", "peak_device_gib", "energy_j")  # of the memory's record: as system and card count
PARTS = {"metrics": ("metrics", "metrics_before"), "items": ("items", "items_before"), "memory": ("memory",)}


class Verdict(NamedTuple):
    """What came of a run."""

    word: str
    findings: list[Finding]
    reasons: list[str]
    """What was not the same around the two, and may be why they differ."""


def compare_run(first: Path, second: Path) -> Verdict:
    """The folders of a run and of the same run trained again. Whatever takes time may differ."""
    records = [read_record(folder / "metrics.json") for folder in (first, second)]
    was, now = (read_manifest(folder / "manifest.json") for folder in (first, second))
    settings, new = _settings([read_settings(folder) for folder in (first, second)])
    findings = [
        settings,
        compare_values("objective", was.get("objective", 1), now.get("objective", 1)),
        *_inputs(was, now),
        compare_values("outcome", *(record.get("outcome") for record in records)),
        compare_histories("losses", first / "history.csv", second / "history.csv"),
        compare_files("trained weights", *map(_trained, (was, now), (first, second), records), apart=None),
        *(compare_values(what, *(_part(record, names) for record in records)) for what, names in PARTS.items()),
        compare_values("record", *map(_rest, records)),
    ]
    platform = _unlike(was, now, PLATFORM)
    if "cuda" in [said.get("device", {}).get("type") for said in (was, now)]:
        platform.append("device: results of a GPU are not repeated bit by bit")
    return Verdict(_word(findings, elsewhere=bool(platform)), findings, [*new, *platform, *_unlike(was, now, AROUND)])


def by_this_program(again: Path, run: str) -> None:
    """Raise :class:`UserError` if ``run`` was trained ``again`` by a program that has changed since: no proof."""
    code = read_manifest(again / "runs" / run / "manifest.json").get("code", {})
    if code.get("program_sha256") not in (None, code_hash()):
        raise UserError(f"{run}: the workflow has changed since it was trained again; remove {again} and start once more")


def _word(findings: Sequence[Finding], elsewhere: bool) -> str:
    """Tolerance is for what was computed ``elsewhere``: on another platform, or on a GPU."""
    if not any(found.said for found in findings):
        return EQUAL
    near = all(found.apart is None or found.apart <= TOLERANCE.get(found.what, 0.0) for found in findings)
    return WITHIN if elsewhere and near else DIFFERS


def _settings(views: Sequence[Mapping[str, Any]]) -> tuple[Finding, list[str]]:
    """What was set then must be so now. What nobody could set then is told: it has its default."""
    was, now = (flat(view) for view in views)
    found = compare_values("settings", was, {name: now.get(name) for name in was})
    new = [f"settings: {name}: unknown then, {value} now" for name, value in now.items() if name not in was]
    return found._replace(apart=FAR if found.said else 0.0), new


def _inputs(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Finding]:
    """Pretrained weights must be the same bytes; data that is prepared on another platform need not. Schema 1 knew neither."""
    if "inputs" not in was:
        return []
    return [
        compare_files("weights", flat(was["inputs"]["weights"]), flat(now["inputs"]["weights"]), apart=FAR),
        compare_files("data", was["inputs"]["data"], now["inputs"]["data"], apart=None),
    ]


def _trained(manifest: Mapping[str, Any], folder: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of what was trained; as the manifest says, so that the files themselves may be gone."""
    files = manifest["files"] if "files" in manifest else files_in(folder, record.get("saved"))
    return {name: known for name, known in files.items() if name != "history.csv"}


def _part(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Some of a record, less what its machine decides."""
    return {
        name: {key: inner for key, inner in value.items() if key not in OF_ITS_MACHINE} if isinstance(value, dict) else value
        for name, value in ((name, record.get(name)) for name in names)
    }


def _rest(record: Mapping[str, Any]) -> dict[str, Any]:
    apart = {*TIMED, *(name for names in PARTS.values() for name in names)}
    return {name: value for name, value in record.items() if name not in apart}


def _unlike(was: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What two manifests say otherwise, a line each."""
    one, two = ({key: value for name in names for key, value in flat(said.get(name), name).items()} for said in (was, now))
    return [
        f"{key}: {_or_not_recorded(one.get(key))} then, {_or_not_recorded(two.get(key))} now"
        for key in dict.fromkeys([*one, *two])
        if not same(one.get(key), two.get(key))
    ]


def _or_not_recorded(value: Any) -> Any:
    return "not recorded" if value is None else value
