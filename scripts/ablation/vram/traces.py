"""Traces of many runs at the price of a few: runs of one shape share one, and sizes between are computed, not traced.

What traces a step imports all that trains one, which takes seconds: it is imported when there is a step to trace.
"""

import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ablation.canonical import canonical, short_hash
from ablation.errors import UserError
from ablation.files import replacing
from ablation.kin import die_with
from ablation.sweep import Run
from ablation.vram.affine import along
from ablation.vram.sharding.rank import as_sharded
from ablation.vram.trace import MICRO_STEPS, Call, Mark, Modules, Trace, Untraceable
from ablation.waiting import followed, say

PACKAGES = ("torch", "peft", "accelerate", "transformers")
WORKER_GIB = 0.3  # resident, of a process that traces, beside what it shares with others
ENOUGH = 2  # traces, from which all others follow
ALONE = {"batch": 1, "rank": None}  # with a batch of one, some tensors need no copy that others need
SAME_SIZE = {"tf32": "fp32", "fp16": "bf16"}


class Point(NamedTuple):
    """Where a run lies within its family."""

    batch: int
    rank: int | None


class Traces:
    """Traces for ``runs`` and a device; ``folder`` keeps them from one process to the next."""

    def __init__(self, runs: Iterable[Run], compute_capability: str, folder: Path | None = None):
        self.compute_capability, self.folder = compute_capability, folder
        self._points: dict[str, set[Point]] = defaultdict(set)
        self._examples: dict[str, Run] = {}
        self._known: dict[tuple[str, Point], Trace | Untraceable] = {}
        self.traced = 0  # steps that were really traced
        for run in runs:
            self._points[name := family(run)].add(_point(run))
            self._examples.setdefault(name, run)

    def prepare(self, workers: int) -> None:
        """Trace all that must be traced, in ``workers`` processes. Without it, traces are made when they are asked for.

        Raises :class:`UserError` where a strategy names modules that its network lacks, before anything is traced; and when one
        of the processes is killed: what is traced by then is kept in the folder.
        """
        ends = [(name, point) for name, points in self._points.items() for point in sorted(self._ends(name, points))]
        needed = [(name, point) for name, point in ends if not self._kept(self._examples[name], point)]
        workers = max(1, min(workers, len(needed)))
        if needed:
            from ablation.vram.step import check_patterns

            check_patterns(self._examples[name] for name, _ in needed)
            kept, processes = len(ends) - len(needed), f" in {workers} processes" if workers > 1 else ""
            already = f"{kept} of {len(ends)} steps traced already, " if kept else ""
            say(f"{already}tracing {len(needed)} step{'s' if len(needed) > 1 else ''}{processes}")
        made = self._side_by_side(needed, workers) if workers > 1 else self._one_by_one(needed)
        for _ in followed(made, "tracing steps", len(needed), "step"):
            pass

    def _one_by_one(self, needed: Iterable[tuple[str, Point]]) -> Iterator[None]:
        for name, point in needed:
            with suppress(UserError):  # is told when it is asked for
                self._at(self._examples[name], name, point)
            yield

    def _side_by_side(self, needed: list[tuple[str, Point]], workers: int) -> Iterator[None]:
        import ablation.vram.step  # noqa: F401  (once for all workers)

        # Forked, because importing torch takes longer than most traces; nothing here has started a thread of torch's.
        context, done = get_context("fork"), 0
        with ProcessPoolExecutor(workers, context, initializer=die_with, initargs=(os.getpid(),)) as pool:
            # A thread of the pool's pickles these while the loop below goes on: nothing that it changes may be among them.
            jobs = {
                pool.submit(_attempt, self.compute_capability, self.folder, self._examples[name], point): (name, point)
                for name, point in needed
            }
            for job in as_completed(jobs):
                try:
                    found, traced = job.result()
                except BrokenProcessPool:
                    raise UserError(_killed(done, len(needed), workers, self.folder)) from None
                done, self.traced = done + 1, self.traced + traced
                if found is not None:
                    self._known[jobs[job]] = found
                yield

    def alike(self, run: Run, how: bool | int) -> Run:
        """``run``, which leaves it to the card, with ``how`` much recomputed: a family with members where its own has them."""
        found = run.recomputing(how)
        self._points.setdefault(family(found), self._points[family(run.recomputing(False))])
        self._examples.setdefault(family(found), found)
        return found

    def _ends(self, name: str, points: set[Point]) -> set[Point]:
        """The points that are traced: where an axis has many values, its ends alone."""
        for field in Point._fields:
            anchors = self._anchors(name, field)
            if anchors:
                alone = {point for point in points if getattr(point, field) in (None, ALONE[field])}
                points = alone | {p._replace(**{field: anchor}) for p in points - alone for anchor in anchors}
        return points

    def __getitem__(self, run: Run) -> Trace:
        return as_sharded(self._at(run, family(run), _point(run)), run)

    def _at(self, run: Run, name: str, point: Point) -> Trace:
        key = name, point
        if key not in self._known:
            try:
                self._known[key] = self._computed(run, name, point) or self._traced(run, point)
            except Untraceable as error:
                self._known[key] = error
        if isinstance(found := self._known[key], Untraceable):
            raise found
        return found

    def _computed(self, run: Run, name: str, point: Point) -> Trace | None:
        """From two traces along an axis on which the family has more than two values."""
        for field in Point._fields:
            value = getattr(point, field)
            anchors = self._anchors(name, field)
            if anchors and value not in (None, ALONE[field], *anchors):
                ends = [self._at(run, name, point._replace(**{field: anchor})) for anchor in anchors]
                return along(ends[0], anchors[0], ends[1], anchors[1], value)
        return None

    def _anchors(self, name: str, field: str) -> list[int]:
        values = sorted({getattr(point, field) for point in self._points[name]} - {None, ALONE[field]})
        return values[:ENOUGH] if len(values) > ENOUGH else []

    def _traced(self, run: Run, point: Point) -> Trace:
        path = self._path(run, point)
        if path and (found := _load(path)):
            return found
        from ablation.vram.step import trace_step

        self.traced += 1
        found = trace_step(run.with_axes(batch=point.batch, rank=point.rank), self.compute_capability)
        if path:
            _save(path, found)
        return found

    def _path(self, run: Run, point: Point) -> Path | None:
        """Where the trace of a run at ``point`` is kept."""
        return self.path(family(run), point, run=run)

    def path(self, *content: Any, run: Run, suffix: str = ".npz") -> Path | None:
        """Where something is kept that follows from ``content``, the device, and the code that traces ``run``."""
        if self.folder is None:
            return None
        parts = [*content, self.compute_capability, versions(run.settings.system)]
        return self.folder / f"{short_hash(parts, 24)}{suffix}"

    def _kept(self, run: Run, point: Point) -> bool:
        path = self._path(run, point)
        return path is not None and path.is_file()


def _attempt(compute_capability: str, folder: Path | None, run: Run, point: Point) -> tuple[Trace | None, int]:
    """A trace and how many steps were traced for it; none for a step that cannot be traced, which is told when asked for."""
    torch.set_num_threads(1)
    traces = Traces((), compute_capability, folder)
    try:
        return traces._traced(run, point), traces.traced
    except UserError:
        return None, 0


def _killed(done: int, count: int, workers: int, folder: Path | None) -> str:
    kept = f"; {done} of {count} steps are traced and kept in {folder}" if folder else ""
    return (
        f"tracing steps: one of {workers} processes was killed, most likely for want of memory, of which each takes about"
        f" {WORKER_GIB:g} GiB{kept}. Start again, with fewer cores if it is killed again"
    )


def family(run: Run) -> str:
    """All that the shape of a run's step in one process depends on, but batch and rank."""
    strategy = run.strategy.model_dump(mode="json", exclude={"lr", "offload"})
    precision = SAME_SIZE.get(run.axes["precision"], run.axes["precision"])
    training = run.settings.training
    micro_steps = min(run.axes["accumulation"], MICRO_STEPS)
    return canonical([run.settings.step_hash, strategy, precision, micro_steps, training.clip is not None, training.ema > 0])


def _point(run: Run) -> Point:
    return Point(run.axes["batch"], run.rank)


@cache
def versions(system: str) -> str:
    """Changes with the code that traces and that is traced."""
    root = Path(__file__).parent.parent
    files = [path for part in ("vram", "training", f"systems/{system}") for path in sorted((root / part).rglob("*.py"))]
    code = sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return canonical([code, [version(name) for name in PACKAGES]])


def _load(path: Path) -> Trace | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            marks = tuple(Mark(int(event), str(phase)) for event, phase in zip(file["at"], file["phases"], strict=True))
            total, trained = file["parameters"].tolist()
            modules = _modules(file["own"], file["owned"], file["calls"]) if "calls" in file else None
            return Trace(file["events"], file["sizes"], file["kinds"], marks, int(file["existing"]), (total, trained), modules)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return None  # not there, cut short or damaged: it is made again


def _modules(own: NDArray, owned: NDArray, calls: NDArray) -> Modules:
    parameters = [set(storages.tolist()) for storages in np.split(own, owned.cumsum())[:-1]]
    return Modules(
        parameters, [Call(event, module, bool(enters), bool(forward)) for event, module, enters, forward in calls.tolist()]
    )


def _arrays(modules: Modules) -> dict[str, NDArray]:
    own = [storage for storages in modules.parameters for storage in sorted(storages)]
    return {"own": np.array(own), "owned": np.array([*map(len, modules.parameters)]), "calls": np.array(modules.calls)}


def _save(path: Path, trace: Trace) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            events=trace.events,
            sizes=trace.sizes,
            kinds=trace.kinds,
            existing=trace.existing,
            parameters=trace.parameters,
            at=[mark.event for mark in trace.marks],
            phases=[mark.phase for mark in trace.marks],
            **(_arrays(trace.modules) if trace.modules else {}),
        )
