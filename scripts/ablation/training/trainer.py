"""One training run from settings to adapter. The same for every system.

With several processes each has a trainer; they take the same steps on samples of their own, and the first one writes.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ablation.canonical import short_hash
from ablation.files import write_text
from ablation.sweep import Run
from ablation.systems.base import System
from ablation.training import guards, order
from ablation.training.checkpoints import Checkpoints
from ablation.training.history import History
from ablation.training.model import for_training, lasting_tensors, structure
from ablation.training.optimizer import make_optimizer
from ablation.training.precision import make_accelerator
from ablation.training.preview import preview
from ablation.training.processes import place
from ablation.training.randomness import random_state, restore_random_state, seed_everything, seed_of
from ablation.training.schedules import learning_rate
from ablation.training.step import training_step
from ablation.training.strategy import count_parameters, remove_trained, save_trained
from ablation.vram.measure import Meter, StepClock

log = logging.getLogger(__name__)

STATE_FORMAT = 2  # of a checkpoint's content


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
    ):
        """Build the model and take up the latest checkpoint. All this is the meter's phase ``load``."""
        self.run, self.system, self.folder, self.device = run, system, folder, device
        self.settings, self.data, self.place = run.settings.training, data, place()
        self.meter, self.clock = meter, StepClock(device)

        started = time.perf_counter()
        self.meter.mark("load")
        seed_everything(run.axes["seed"])
        self.accelerator = make_accelerator(run.axes["precision"], device)
        model = for_training(system, run, weights, device)
        if self.place.first:
            remove_trained(folder)
            write_text(folder / "model.txt", structure(model))
        self.parameters = count_parameters(model)
        optimizer = make_optimizer(model, run.strategy.lr, self.settings)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer, device_placement=[False, False])
        self.samples = system.samples(data, train=True)
        self.split = order.Split(run.axes["batch"], run.axes["accumulation"], self.place.count, self.place.rank)
        self.steps_per_epoch = order.steps_per_epoch(self.samples.groups(), self.split.samples)
        self.total = self._total_steps()
        self.load_seconds = time.perf_counter() - started

        fingerprint = short_hash([STATE_FORMAT, run.training_view], 64)
        self.checkpoints = Checkpoints(folder / "state", fingerprint, self.settings.keep_checkpoints)
        self.diagnoses: list[guards.Diagnosis] = []
        if not self.place.first:
            seed_everything(seed_of(run.axes["seed"], self.place.rank))  # dropout differs, fresh weights did not
        with self.accelerator.main_process_first():
            self.start = self._resume()
            self.history = History(folder / "state" / "history.csv", keep_steps=self.start, writes=self.place.first)
        self.meter.watch_load(lasting_tensors(self.model, self.optimizer))

    @property
    def step(self) -> int:
        """Number of the optimizer step under way, from 1."""
        return len(self.history.rows) + 1

    def _total_steps(self) -> int:
        if self.settings.steps is not None:
            return self.settings.steps
        return self.settings.epochs * self.steps_per_epoch

    def train(self) -> str:
        """Train to the last step. Returns the outcome: ``completed``, or ``diverged`` when a guard stopped the run."""
        start = self.start
        batches = iter(self._loader(start))
        log.info(
            "training %s: steps %d to %d, %d trainable parameters",
            self.run.id,
            start,
            self.total,
            self.parameters["trainable"],
        )
        outcome = "completed"
        with self._writer(start) as writer, self._progress(start) as progress:
            for step in range(start, self.total):
                row = self._step(step, islice(batches, self.split.accumulation))
                if self._fatal(step, row):
                    outcome = "diverged"
                    break
                self._record(step, row, writer, progress)
                if self._previews(step + 1):
                    self._preview(step + 1, writer)
                if (step + 1) % self.settings.checkpoint_every == 0 and step + 1 < self.total:
                    self._save(step + 1)
        return outcome

    def finish(self) -> str:
        """Write what was trained; returns the name of the folder or file. For the first process."""
        saved = save_trained(self.accelerator.unwrap_model(self.model), self.folder)
        log.info("saved %s", self.folder / saved)
        return saved

    def record(self) -> dict[str, Any]:
        """What the run measured and found, as plain data; the memory is this process's."""
        return {
            "steps": len(self.history.rows),
            "total_steps": self.total,
            "epochs": len(self.history.rows) / self.steps_per_epoch,
            "final_loss": self._final_loss(),
            "diagnoses": [vars(diagnosis) for diagnosis in self.diagnoses],
            "parameters": self.parameters,
            "time": {"load_s": self.load_seconds, **self.clock.report(self.run.effective_batch)},
            "memory": self.meter.report(),
        }

    def _final_loss(self) -> float | None:
        """Mean loss of the last tenth of the steps."""
        losses = self.history.column("loss")
        tail = losses[-max(1, len(losses) // 10) :]
        return sum(tail) / len(tail) if tail else None

    def _step(self, step: int, batches) -> dict[str, float]:
        """One optimizer step; its numbers, read back from the device once."""
        rate = learning_rate(step, self.total, self.run.strategy.lr, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.clock.start()
        on_device = (order.to_device(batch, self.device) for batch in batches)
        values = training_step(
            self.system,
            self.model,
            self.optimizer,
            self.accelerator,
            on_device,
            self.run.axes["accumulation"],
            self.settings.clip,
            self.meter.mark,
        )
        seconds = self.clock.stop()
        self.meter.watch_step(lasting_tensors(self.model, self.optimizer))
        epoch = (step + 1) / self.steps_per_epoch
        means = self.accelerator.reduce(torch.stack([value.float() for value in values.values()]), "mean")
        numbers = dict(zip(values, means.tolist(), strict=True))
        return {"step": step + 1, "epoch": round(epoch, 4), "lr": rate, **numbers, "seconds": round(seconds, 6)}

    def _fatal(self, step: int, row: dict[str, float]) -> bool:
        scaled = self.accelerator.scaler is not None
        found = guards.check_finite(step + 1, {k: v for k, v in row.items() if k not in ("step", "epoch")}, scaled)
        if found is None and scaled:
            found = guards.check_scaler([*self.history.column("grad_norm", guards.MAX_SKIPPED), row["grad_norm"]], step + 1)
        if found is not None:
            self._diagnose(found)
        return found is not None

    def _record(self, step: int, row: dict[str, float], writer: SummaryWriter | None, progress: tqdm) -> None:
        self.history.append(row)
        for name, value in row.items():
            if name != "step" and writer is not None:
                writer.add_scalar(f"train/{name}", value, step + 1)
        progress.update()
        progress.set_postfix(loss=f"{row['loss']:.4g}", lr=f"{row['lr']:.1e}", refresh=False)
        watch = self.settings.guards
        if step + 1 == watch.stuck_after and (found := guards.check_stuck(self.history.column("loss"), watch)):
            self._diagnose(found)

    def _previews(self, step: int) -> bool:
        """Whether the model is previewed after ``step`` steps: now and then, and at the end."""
        every = self.settings.preview_every
        return every is not None and self.place.first and (step % every == 0 or step == self.total)

    def _preview(self, step: int, writer: SummaryWriter) -> None:
        self.meter.mark("preview")
        model = self.accelerator.unwrap_model(self.model)
        numbers = preview(self.system, model, self.data, self.folder / "previews" / f"step-{step:08d}", self.device)
        for name, value in numbers.items():
            writer.add_scalar(f"preview/{name}", value, step)
        log.info("preview at step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))

    def _writer(self, start: int) -> AbstractContextManager[SummaryWriter | None]:
        """TensorBoard's, of the first process."""
        if not self.place.first:
            return nullcontext()
        if start == 0:
            for made in ("tensorboard", "previews"):
                shutil.rmtree(self.folder / made, ignore_errors=True)
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=start)

    def _progress(self, start: int) -> tqdm:
        hidden = not self.place.first
        return tqdm(total=self.total, initial=start, desc=self.run.id, unit="step", mininterval=1.0, disable=hidden)

    def _diagnose(self, diagnosis: guards.Diagnosis) -> None:
        log.warning("%s", diagnosis)
        self.diagnoses.append(diagnosis)

    def _loader(self, start: int):
        seed, workers = self.run.axes["seed"], self.run.settings.compute.workers
        return order.loader(self.samples, self.split, seed, start, self.total, workers, pin=self.device.type == "cuda")

    def _save(self, step: int) -> None:
        random = gather_object([random_state()])
        if not self.place.first:
            return
        model = self.accelerator.unwrap_model(self.model)
        scaler = self.accelerator.scaler
        self.checkpoints.save(
            step,
            {
                "step": step,
                "trained": {name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "random": random,
            },
        )
        log.info("checkpoint at step %d", step)

    def _resume(self) -> int:
        """Continue from the latest good checkpoint; returns the number of steps that are done."""
        if self.place.first:
            self.checkpoints.discard_others()
        state = self.checkpoints.latest(log.warning)
        if state is None:
            return 0
        parameters = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        with torch.no_grad():
            for name, value in state["trained"].items():
                parameters[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        restore_random_state(state["random"][self.place.rank])
        log.info("resuming after step %d", state["step"])
        return state["step"]
