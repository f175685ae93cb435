"""One training run from settings to adapter. The same for every system.

With several processes each has a trainer; they take the same steps on samples of their own, and the first one writes.

A GPU never waits for the host: while it computes a step, the next one is given to it, and only then are the numbers of the
first read. What looks at them (guards, history, signals) is a step late, but never later than a checkpoint, a preview or the
end, so that it comes to what it would have come to at once. A CPU has nothing under way: there no step is late.
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ablation import lease, leave
from ablation.attempts import Journal
from ablation.errors import UserError
from ablation.files import write_text
from ablation.progress import Progress
from ablation.sweep import Run
from ablation.systems.base import System
from ablation.training import guards, order
from ablation.training.accelerator import accelerator_for
from ablation.training.checkpoints import Checkpoints, State
from ablation.training.fingerprint import state_fingerprint
from ablation.training.history import History
from ablation.training.model import for_training, structure
from ablation.training.preview import preview
from ablation.training.processes import gathered, place
from ablation.training.randomness import random_state, restore_random_state, seed_everything, seed_of
from ablation.training.schedules import average_decay, learning_rate
from ablation.training.step import TrainingStep
from ablation.training.strategy import count_parameters, digest_of, remove_trained, save_trained
from ablation.training.trackers import check_trackers, tracked
from ablation.training.underway import Reading, Underway
from ablation.vram.measure import Meter, StepClock, of_processes

log = logging.getLogger(__name__)

STOPPED = ("diverged", "untrained")  # outcomes of a run that a guard ended


class Trainer:
    """A run in its folder: built, resumed where it stopped, trained to the end or to a diagnosis."""

    def __init__(
        self,
        run: Run,
        system: System,
        weights: dict[str, Path],
        data: Sequence[Path],
        folder: Path,
        device: torch.device,
        meter: Meter,
        recomputed: bool | int | None = None,
        fingerprint: str | None = None,
    ):
        """Build the model and take up the latest checkpoint. All this is the meter's phase ``load``.

        ``recomputed``: the blocks that are, where the run leaves it to its card (:meth:`Predictor.settled`).
        ``fingerprint``: of settings and inputs (:func:`state_fingerprint`), where it is known.
        """
        self.run, self.system, self.folder, self.device = run, system, folder, device
        self.settings, self.data, self.place = run.settings.training, data, place()
        self.meter, self.clock = meter, StepClock(device)
        self.underway: deque[Underway] = deque()
        self.behind = 1 if device.type == "cuda" else 0  # steps under way while the next one is prepared

        check_trackers(run)
        started = time.perf_counter()
        self.meter.mark("load")
        seed_everything(run.axes["seed"])
        self.accelerator = accelerator_for(run, system, device)
        self.model = for_training(system, run if recomputed is None else run.recomputing(recomputed), weights, device)
        if self.place.first:
            remove_trained(folder)
            write_text(folder / "model.txt", structure(self.model))
        self.parameters = count_parameters(self.model)
        self.training_step = TrainingStep(run, system, self.model, self.accelerator)
        self.optimizer = self.training_step.optimizer
        self.samples = system.samples(data, train=True)
        self.split = order.Split(run.axes["batch"], run.axes["accumulation"], self.place.count, self.place.rank)
        self.steps_per_epoch = order.steps_per_epoch(self.samples.groups(), self.split.samples)
        self.total = self._total_steps()
        self.load_seconds = time.perf_counter() - started

        self.progress = Progress(folder, self.total, run.effective_batch, writes=self.place.first)
        self.checkpoints = Checkpoints(
            folder / "state",
            fingerprint or state_fingerprint(run, weights, data),
            self.settings.keep_checkpoints,
            self.place,
            wait=self.accelerator.wait_for_everyone,
        )
        self.diagnoses: list[guards.Diagnosis] = []
        self.untrained = self._trained_digest()
        if not self.place.first:
            seed_everything(seed_of(run.axes["seed"], self.place.rank))  # dropout differs, fresh weights did not
        with self.accelerator.main_process_first():
            self.history = History(folder / "state" / "history.csv", writes=self.place.first)
            self.start = self._resume()
        self._check_start()
        self.meter.watch_load(self.training_step.lasting())

    @property
    def step(self) -> int:
        """Number of the optimizer step under way, from 1."""
        return len(self.history.rows) + 1

    def _total_steps(self) -> int:
        if self.settings.steps is not None:
            return self.settings.steps
        return self.settings.epochs * self.steps_per_epoch

    def train(self) -> str:
        """Train to the last step. Returns the outcome: ``completed``; ``diverged`` or ``untrained`` when a guard stopped it, or

        the end finds the first weights; ``preempted`` when a signal asked to leave: then a checkpoint of the last step is there
        to go on from.
        """
        start = self.start
        batches = iter(self._loader(start))
        log.info(
            "training %s: steps %d to %d, %d trainable parameters",
            self.run.id,
            start,
            self.total,
            self.parameters["trainable"],
        )
        self._tell("train")
        with self._writer(start) as writer, self._bar(start) as bar, tracked(self.accelerator, self.run):
            if start and self._previews(start) and not self._preview_folder(start).is_dir():
                self._preview(start, writer)  # the attempt before left in haste
            for step in range(start, self.total):
                try:
                    self.underway.append(self._step(step, islice(batches, self.split.accumulation)))
                except Exception:
                    if (found := self._settle(0, writer, bar)) in STOPPED:  # by a step before, after which none was to come
                        return found
                    raise
                looked_at = self._previews(step + 1) or self._saves(step + 1) or step + 1 == self.total
                found = self._settle(0 if looked_at else self.behind, writer, bar)
                if found in STOPPED:
                    return found
                leaves = found == "preempted" and step + 1 < self.total
                if self._previews(step + 1) and not leaves:
                    self._preview(step + 1, writer)
                if self._saves(step + 1) or leaves:
                    self._save(step + 1)
                if leaves:
                    return "preempted"
                self._tell("train")
        return "untrained" if self._unchanged() else "completed"

    def finish(self) -> str:
        """Write what was trained, or its average; returns the name of folder or file. All processes come, the first writes."""
        with self._averaged():
            trained = self.training_step.sharing.trained()
            if not self.place.first:
                return ""
            saved = save_trained(self.model, trained, self.folder)
        log.info("saved %s", self.folder / saved)
        return saved

    def shared_record(self) -> dict[str, Any]:
        """:meth:`record` with the memory of all processes, which all have come here."""
        found = self.record()
        if self.place.count == 1:
            return found
        return found | {"memory": of_processes(gathered(found["memory"]))}

    def record(self) -> dict[str, Any]:
        """What the run measured and found, as plain data; the memory is this process's."""
        return {
            "steps": len(self.history.rows),
            "total_steps": self.total,
            "epochs": len(self.history.rows) / self.steps_per_epoch,
            "final_loss": self._final_loss(),
            **self._average_record(),
            "diagnoses": [vars(diagnosis) for diagnosis in self.diagnoses],
            "parameters": self.parameters,
            "time": {"load_s": self.load_seconds, **self.clock.report(self.run.effective_batch)},
            "memory": self.meter.report(),
        }

    def _average_record(self) -> dict[str, float]:
        """The decay in force in the last update of the average, where there is one."""
        average = self.training_step.average
        return {"average_decay": average_decay(average.updates, self.settings)} if average and average.updates else {}

    def _final_loss(self) -> float | None:
        """Mean loss of the last tenth of the steps."""
        losses = self.history.column("loss")
        tail = losses[-max(1, len(losses) // 10) :]
        return sum(tail) / len(tail) if tail else None

    def _step(self, step: int, batches) -> Underway:
        """One optimizer step is given to the device, and whether a signal asks this process to leave to the others."""
        rate = learning_rate(step, self.total, self.run.strategy.lr, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.clock.start()
        on_device = (order.to_device(batch, self.device) for batch in batches)
        values = self.training_step(on_device, self.split.accumulation, self.meter.mark)
        self.clock.stop()
        self.meter.watch_step(self.training_step.lasting())
        leaves = torch.full((), float(leave.asked() is not None), device=self.device)  # filled there: nothing is copied
        means = self.accelerator.reduce(torch.stack([*(value.float() for value in values.values()), leaves]), "mean")
        known = {"step": step + 1, "epoch": round((step + 1) / self.steps_per_epoch, 4), "lr": rate}
        return Underway(step, known, tuple(values), Reading(means))

    def _settle(self, behind: int, writer: SummaryWriter | None, bar: tqdm) -> str | None:
        """Look at the numbers of the steps under way, but of the last ``behind``, and keep them.

        Returns ``diverged`` or ``untrained`` where one ended the run: those after it are forgotten. ``preempted`` where a
        process is asked to leave: then nothing stays under way.
        """
        found = None
        while len(self.underway) > behind:
            done = self.underway.popleft()
            row, leaves = done.row(self.clock.read())
            if self._fatal(done.step, row):
                self.underway.clear()
                return "diverged"
            self._record(done.step, row, writer, bar)
            if self._learns_nothing():
                self.underway.clear()
                return "untrained"
            if leaves:
                found, behind = "preempted", 0
        return found

    def _fatal(self, step: int, row: dict[str, float]) -> bool:
        scaled = self.accelerator.scaler is not None
        found = guards.check_finite(step + 1, {k: v for k, v in row.items() if k not in ("step", "epoch")}, scaled)
        if found is None and scaled:
            found = guards.check_scaler([*self.history.column("grad_norm", guards.MAX_SKIPPED), row["grad_norm"]], step + 1)
        if found is not None:
            self._diagnose(found)
        return found is not None

    def _learns_nothing(self) -> bool:
        last = guards.NOTHING_LEARNED
        losses, norms = (self.history.column(name, last) for name in ("loss", "grad_norm"))
        found = guards.check_learning(losses, norms, self.steps_per_epoch, self.total)
        if found is not None:
            self._diagnose(replace(found, step=len(self.history.rows)))
        return found is not None

    def _unchanged(self) -> bool:
        """Whether the weights to be saved are those that training began with; the same in all processes."""
        with self._averaged():
            same = self._trained_digest() == self.untrained
        if same and self.place.first:
            self._diagnose(guards.unchanged(len(self.history.rows)))
        return gathered(same)[0] if self.place.count > 1 else same

    def _trained_digest(self) -> str:
        """A digest of the trained weights; in the processes after the first, it may be of nothing."""
        return digest_of(self.training_step.sharing.trained())

    def _record(self, step: int, row: dict[str, float], writer: SummaryWriter | None, bar: tqdm) -> None:
        lease.check(self.folder)
        self.history.append(row)
        self._tell("train")
        self.accelerator.log({f"train/{name}": value for name, value in row.items() if name != "step"}, step=step + 1)
        for name, value in row.items():
            if name != "step" and writer is not None:
                writer.add_scalar(f"train/{name}", value, step + 1)
        bar.update()
        bar.set_postfix(loss=f"{row['loss']:.4g}", lr=f"{row['lr']:.1e}", refresh=False)
        if step + 1 == self.settings.guards.stuck_after:
            self._watch_loss(upto=step + 1)

    def _watch_loss(self, upto: int) -> None:
        """Whether the loss has not fallen by the step at which one can tell, if that is among the steps ``upto`` this one."""
        watch = self.settings.guards
        if watch.stuck_after and upto >= watch.stuck_after:
            losses = self.history.column("loss")[: watch.stuck_after]
            if found := guards.check_stuck(losses, watch):
                self._diagnose(found)

    def _previews(self, step: int) -> bool:
        """Whether the model is previewed after ``step`` steps: now and then, and at the end."""
        every = self.settings.preview_every
        looks = self.place.first or self.training_step.sharing.together
        return every is not None and looks and (step % every == 0 or step == self.total)

    def _preview(self, step: int, writer: SummaryWriter | None) -> None:
        self.meter.mark("preview")
        self._tell("preview")
        with self._averaged(), self._kept(self._preview_folder(step)) as out:
            numbers = preview(self.system, self.model, self.data, out, self.device)
        if writer is None:
            return
        for name, value in numbers.items():
            writer.add_scalar(f"preview/{name}", value, step)
        log.info("preview at step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))

    def _preview_folder(self, step: int) -> Path:
        return self.folder / "previews" / f"step-{step:08d}"

    @contextmanager
    def _kept(self, path: Path) -> Iterator[Path]:
        """``path`` in the first process; what others make in the folder that they get is not kept."""
        if self.place.first:
            yield path
            return
        with TemporaryDirectory() as folder:
            yield Path(folder) / path.name

    def _averaged(self) -> AbstractContextManager:
        """The model has the average of its weights for a while, if there is one."""
        average = self.training_step.average
        return nullcontext() if average is None else average.in_place()

    def _writer(self, start: int) -> AbstractContextManager[SummaryWriter | None]:
        """TensorBoard's, of the first process."""
        if not self.place.first:
            return nullcontext()
        if start == 0:
            for made in ("tensorboard", "previews"):
                shutil.rmtree(self.folder / made, ignore_errors=True)
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=start)

    def _tell(self, phase: str) -> None:
        """Whoever looks on is told how far the run is."""
        rows = self.history.rows
        loss = float(rows[-1]["loss"]) if rows else None
        self.progress.tell(phase, len(rows), loss, self.clock.seconds, self.meter.peak_gib())

    def _bar(self, start: int) -> tqdm:
        hidden = not self.place.first
        return tqdm(total=self.total, initial=start, desc=self.run.id, unit="step", mininterval=1.0, disable=hidden)

    def _diagnose(self, diagnosis: guards.Diagnosis) -> None:
        log.warning("%s", diagnosis)
        self.diagnoses.append(diagnosis)

    def _loader(self, start: int):
        seed, workers = self.run.axes["seed"], self.run.settings.compute.workers
        return order.loader(self.samples, self.split, seed, start, self.total, workers, pin=self.device.type == "cuda")

    def _saves(self, step: int) -> bool:
        """Whether a checkpoint is due after ``step`` steps: by steps, by epochs; what is finished needs none."""
        every, epochs = self.settings.checkpoint_every, self.settings.checkpoint_epochs
        due = [steps for steps in (every, epochs and epochs * self.steps_per_epoch) if steps]
        return step < self.total and any(step % steps == 0 for steps in due)

    def _save(self, step: int) -> None:
        self._tell("save")
        self.history.sync()
        average, sharing = self.training_step.average, self.training_step.sharing
        shared = {"step": step, "trained": sharing.trained(), "average": average and average.state(), **sharing.shared_state()}
        self.checkpoints.save(step, shared, {"random": random_state(), "peaks": self.meter.peaks(), **sharing.own_state()})
        log.info("checkpoint at step %d", step)

    def _resume(self) -> int:
        """Continue from the latest good checkpoint; returns the number of steps that are done."""
        if self.place.first:
            self.checkpoints.remove_unfinished()
        reached = len(self.history.rows)
        state = self.checkpoints.latest(log.warning, last=reached)
        done = 0 if state is None else self._restore(state)
        self.history.cut(done)
        self._watch_loss(upto=done)
        if self.place.first:
            journal = Journal(self.folder)
            again = journal.summary(self.checkpoints.fingerprint)["count"] > 1
            journal.train(done, self.total, repeats=reached - done if again else 0)
        return done

    def _check_start(self) -> None:
        """All processes must go on from one checkpoint: one that takes up another would spoil the result without a word."""
        if self.place.count > 1 and len(set(starts := gathered(self.start))) > 1:
            raise UserError(
                f"{self.folder}: the processes find different checkpoints (steps {', '.join(map(str, starts))}); does"
                " a node show another state of the folder? Start the workflow again"
            )

    def _restore(self, state: State) -> int:
        self.training_step.sharing.restore(state)
        if self.training_step.average is not None:
            self.training_step.average.restore(state["average"])
        restore_random_state(state["random"])
        self.meter.restore(state["peaks"])
        log.info("resuming after step %d", state["step"])
        return state["step"]
