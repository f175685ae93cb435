"""Train one run and evaluate it. Its outcome (completed, untrained, oom, diverged) is written; the exit status is 0.

Asked to leave by a signal (SIGUSR1, SIGTERM, SIGINT) it saves a checkpoint after the step under way and exits with status 76;
the next attempt goes on from there. What is trained is kept: where the evaluation fails or changes, nothing is trained again.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ablation import lease, leave, seal
from ablation.attempts import Journal
from ablation.cli import add_job_arguments, add_prefix_arguments, call, log_to
from ablation.device import choose_device
from ablation.errors import UserError
from ablation.evaluated import Evaluated
from ablation.files import NO_SPACE
from ablation.gpus import Lease, lease_gpus, visible_gpus
from ablation.hardware import load_card
from ablation.manifest import inputs_of
from ablation.neighbours import AGAIN, NOBODY, CardShared, Neighbours, Usage, mark, of_place
from ablation.neighbours import STATUS as DISTURBED
from ablation.packing import share_of
from ablation.resolved import load_run
from ablation.state import State
from ablation.sweep import Run
from ablation.training.companions import companions_of, in_child
from ablation.training.failures import of_status
from ablation.training.fingerprint import state_fingerprint
from ablation.training.launcher import OOM, start
from ablation.training.loading import load_libraries
from ablation.training.processes import as_one_of_several, gathered, place, started
from ablation.training.result import NOT_KEPT, Result

if TYPE_CHECKING:
    import torch

    from ablation.vram.measure import Meter

REQUEUE_SECONDS = 120.0  # in which SLURM ends a job that asked to be queued again
CPU_OR_ALL = Lease([])  # nothing is leased, or all that there is


class Cramped(Exception):
    """The part of a GPU that the run had was too small: that says nothing of the card."""


def train(run: Run, args: argparse.Namespace, held: Lease = CPU_OR_ALL) -> dict[str, Any]:
    """Train ``run`` in ``args.folder``; returns the content of ``training.json``, and the ``surroundings``."""
    load_libraries(run)
    import torch

    from ablation.provenance import surroundings
    from ablation.training.randomness import make_deterministic
    from ablation.vram.budget import hold_to_card
    from ablation.vram.measure import make_meter

    beside = of_place(place().local, visible_gpus())
    torch.set_num_threads(max(1, args.threads // place().count))
    make_deterministic()
    device = choose_device(args.device, run.settings.scale)
    if device.type == "cuda" and place().count > 1:
        device = torch.device("cuda", place().local)
        torch.cuda.set_device(device)
    hardware = run.settings.hardware
    budget = hold_to_card(hardware, load_card(hardware, args.cards), device, held.share_gib)
    logging.info("budget: %s", budget)
    on = surroundings(str(device))
    found = attempt(run, args, device, make_meter(device, budget), beside)
    return {"run": run.id, "device": device.type, "surroundings": on, **found}


def attempt(
    run: Run, args: argparse.Namespace, device: "torch.device", meter: "Meter", beside: Neighbours = NOBODY
) -> dict[str, Any]:
    """Train to the end, to a diagnosis, or until the memory is full; returns the outcome and what was measured.

    Where the memory is full with what others hold beside it, the outcome is ``failed``.
    """
    from ablation.prefix.identity import system_for
    from ablation.training.trainer import Trainer
    from ablation.vram.oom import is_out_of_memory, out_of_memory, release_memory, spoiled

    trainer, failure, neighbour = None, None, None
    try:
        weights, where = dict(args.weights), (args.data, args.folder, device, meter)
        system = system_for(run, args.prefixes, weights, args.hashes, device)
        fingerprint = state_fingerprint(run, weights, args.data, args.hashes)
        trainer = Trainer(run, system, weights, *where, recomputed_of(run, args), fingerprint)
        outcome = trainer.train()
        lease.check(args.folder)
        found = {"outcome": outcome, **trainer.shared_record()}
        neighbour = next(filter(None, gathered(beside.found()) if place().count > 1 else [beside.found()]), None)
        if outcome == "completed":
            found["saved"] = trainer.finish()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        failure, neighbour = out_of_memory(error, meter, trainer.step if trainer else None), beside.found()
        failure |= {"process": place().rank + 1} if place().count > 1 else {}
    if failure is not None:
        # Only here: the error's traceback is gone, and with it what its frames kept allocated.
        release_memory(device)
        which = f" in process {place().rank + 1} of {place().count}" if place().count > 1 else ""
        logging.warning("out of memory%s: %s", which, failure["message"])
        if spoiled(failure, neighbour, meter):
            return {"outcome": "failed", "reason": neighbour}
        found = {"outcome": "oom", **(trainer.record() if trainer else {"memory": meter.report()}), "oom": failure}
    if neighbour is not None:
        mark(found, meter.budget.share_gib is not None)
    return found


def recomputed_of(run: Run, args: argparse.Namespace) -> int | None:
    """How many blocks the run recomputes, if it leaves that to its card: as the plan has found."""
    if not run.left_to_card:
        return None
    from ablation.vram.predict import Predictor

    found = Predictor([run], load_card(run.settings.hardware, args.cards), args.traces).settled(run)
    logging.info("recomputed to fit the card: the last %d blocks", found.strategy.gradient_checkpointing)
    return found.strategy.gradient_checkpointing


def train_here(run: Run, args: argparse.Namespace, result: Result, held: Lease = CPU_OR_ALL) -> None:
    """Train in this process and keep the result. Of several, the first keeps it, or the one that runs out of memory."""
    if place().first:
        log_to(args.folder / "trainer.log")
    else:
        logging.getLogger().setLevel(logging.WARNING)
    found = train(run, args, held)
    if found["outcome"] == "preempted":
        return
    full = found["outcome"] in NOT_KEPT
    if place().first or full:
        around = found.pop("surroundings")
        if held.share is not None and "time" in found:
            found["time"]["packed"] = max(held.most(), found["time"].get("packed", 1))
        result.keep(found, around)
    if started() and full:
        os._exit(OOM)  # without a word to the others, who wait in a collective operation


def train_in_processes(run: Run, args: argparse.Namespace, result: Result) -> None:
    """Train in a process a GPU. One that runs out of memory has kept so, which is a result."""
    gpus, compute = run.axes["gpus"], run.settings.compute
    start(sys.argv, gpus, args.folder / "state", compute.patience_min, compute.nodes, max(1, args.threads // gpus))


def work(run: Run, args: argparse.Namespace, result: Result, held: Lease) -> str:
    """Train, in this process or in several; returns the outcome."""
    seal.check(args.data)
    result.discard()
    try:
        if run.in_one_process:
            train_here(run, args, result, held)
        else:
            train_in_processes(run, args, result)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        where = f"{args.folder}: no room on its disk ({error.strerror})"
        raise UserError(f"{where}; make room and start the workflow again: it goes on from the last checkpoint") from None
    found = result.found()
    if found is not None and found["outcome"] == "failed":
        result.discard()
        raise CardShared(found["reason"], Neighbours(held.gpus))
    return "preempted" if found is None else found["outcome"]


def journaled(journal: Journal, fingerprint: str, held: Lease, work: Callable[[], str]) -> None:
    """Do ``work``, an attempt at a run, with its beginning and its end in the journal."""
    journal.start(fingerprint, held.gpus)
    measured = Usage(held)
    try:
        outcome = work()
    except BaseException as error:
        journal.end("failed", f"{type(error).__name__}: {error}".splitlines()[0], *measured.used())
        raise
    reason = leave.asked() or "a signal to one of its processes" if outcome == "preempted" else ""
    journal.end(outcome, reason, *measured.used())
    if outcome == "preempted":
        raise leave.Left(reason)
    if outcome == "oom" and held.share is not None:
        raise Cramped


def judge(run: Run, args: argparse.Namespace, training: dict[str, Any], held: Lease) -> dict[str, Any]:
    """Evaluate what is trained, as a process would that has not trained. A signal ends it at once: nothing is lost."""
    with leave.at_once():
        import torch

        from ablation.conclusion import conclude
        from ablation.prefix.identity import system_for
        from ablation.training.randomness import make_deterministic
        from ablation.vram.budget import hold_to_share
        from ablation.vram.oom import is_out_of_memory, release_memory

        torch.set_num_threads(max(1, args.threads // run.axes["gpus"]))
        make_deterministic(False)
        device = choose_device(args.device, run.settings.scale)
        release_memory(device)
        hold_to_share(held.share_gib, device)
        weights = dict(args.weights)
        try:
            system = system_for(run, args.prefixes, weights, args.hashes, device)
            return conclude(run, system, training, args.folder, weights, args.data, device)
        except RuntimeError as error:
            if held.share is None or not is_out_of_memory(error):
                raise
            raise Cramped from error


class Job:
    """A run in its folder, whose lease is held: what is found of it is kept there, and published by its own job alone."""

    def __init__(self, run: Run, args: argparse.Namespace):
        self.run, self.args = run, args
        self.fingerprint = state_fingerprint(run, dict(args.weights), args.data, args.hashes)
        self.result, self.evaluated = Result(args.folder, self.fingerprint), Evaluated(run, args.folder, self.fingerprint)

    def settle(self) -> None:
        """Make what the folder holds this training's, once its lease is held."""
        State(self.args.folder).take(self.fingerprint, self.run.training_view, self._inputs())

    def whole(self) -> bool:
        """Whether nothing is left to do but to publish."""
        return self.result.whole() and (self.args.base is None or self.evaluated.found() is not None)

    def publish(self) -> None:
        """Put what is whole where the workflow looks for it."""
        self.result.publish(self.run, self._inputs())
        if self.args.base is not None:
            self.evaluated.publish(self.args.base)

    def do(self, own: bool) -> None:
        """Lease GPUs where there are some; train, unless that is done; evaluate. ``own``: publish both."""
        run, args, trained, inputs = self.run, self.args, self.result.whole(), self._inputs()
        share = None if args.alone else share_of(run, args.plan, load_card(run.settings.hardware, args.cards))
        here = 1 if trained else run.axes["gpus"] // run.settings.compute.nodes
        with lease_gpus(here, share=share) as held:
            logging.info("run %s on %s", run.id, ", ".join(held.gpus) or "the CPU")
            if not trained:
                self.evaluated.discard()
                try:
                    journaled(Journal(args.folder), self.fingerprint, held, lambda: work(run, args, self.result, held))
                except CardShared as error:
                    if not args.again:
                        logging.warning("%s: once more", error)
                        error.neighbours.wait()
                    raise
            if own:
                self.result.publish(run, inputs)
            if args.base is None:
                return
            self.evaluated.keep(judge(run, args, self.result.found(), held))
            if own:
                self.evaluated.publish(args.base)

    def _inputs(self) -> dict[str, Any]:
        return inputs_of(dict(self.args.weights), self.args.data, self.args.hashes)


def do_in_child(job: Job, own: bool) -> int:
    """Do ``job`` in a process that has all libraries; returns its status. Raises :class:`leave.Left` where it was asked to."""

    def do() -> None:
        try:
            job.do(own)
        except CardShared:
            if job.args.again:
                raise
            sys.exit(DISTURBED)

    status = in_child(do)
    if status == leave.STATUS:
        raise leave.Left(leave.asked() or "a signal to its process")
    return status


def go_on(run: Run, args: argparse.Namespace) -> None:
    """Do further runs of the study that are not begun, ``compute.runs_per_job`` with ``run``; their own jobs publish them.

    One that fails is left to its own job, which tries it again and tells of it.
    """
    more = run.settings.compute.runs_per_job - 1
    for other in companions_of(run, args.study, args.plan):
        folder = args.folder.parent / other.id
        if not more or (folder / "metrics.json").exists():
            continue
        job = Job(other, argparse.Namespace(**{**vars(args), "folder": folder}))
        if job.whole():
            continue
        with lease.hold_if_free(folder) as free:
            if not free or (folder / "metrics.json").exists():
                continue
            job.settle()
            if job.whole():
                continue
            more -= 1
            logging.info("run %s, in the process of %s", other.id, run.id)
            if status := do_in_child(job, own=False):
                how = f"was {of_status(status)}" if status < 0 else "failed"
                logging.warning("run %s %s; its own job tries it again", other.id, how)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="study.json; without it, --run is the path of a run.yaml")
    parser.add_argument("--run", required=True, help="the run's id in the study, or a run.yaml")
    parser.add_argument("--fingerprint", help="refuse the run if the study was changed since")
    add_job_arguments(parser)
    parser.add_argument("--cards", type=Path, required=True, help="folder of the hardware files")
    parser.add_argument("--traces", type=Path, help="folder of the plan's traces, for a run that leaves something to its card")
    parser.add_argument("--folder", type=Path, required=True, help="the run's folder")
    parser.add_argument("--base", type=Path, help="metrics.json of the pretrained model; without it, nothing is evaluated")
    parser.add_argument("--plan", type=Path, help="plan.csv; with it the run may share a GPU, or the start of its process")
    parser.add_argument("--alone", action="store_true", help="have the GPU for itself whatever the plan says")
    add_prefix_arguments(parser)
    parser.add_argument(AGAIN, action="store_true", help="what runs beside it has disturbed it once")
    return parser.parse_args()


def main() -> None:
    """Lease the folder; train and evaluate, unless that is done; publish; with ``compute.runs_per_job``, go on with others."""
    args = arguments()
    leave.listen()
    run = load_run(args.study, args.run, args.fingerprint)
    job, compute = Job(run, args), run.settings.compute
    if started():  # by this program, which holds the leases
        with as_one_of_several(compute.patience_min):
            train_here(run, args, job.result)
        return
    several = compute.runs_per_job > 1 and compute.pack == 1 and run.in_one_process and None not in (args.study, args.plan)
    trained = False
    try:
        with lease.hold(args.folder, logging.warning):
            job.settle()
            trained = job.result.whole()
            if trained:
                logging.warning("%s is trained already; remove %s to train it again", run.id, args.folder)
            if job.whole():
                job.publish()
            elif several:
                load_libraries(run)
                import matplotlib.figure  # noqa: F401  (evaluations draw with it)

                if (status := do_in_child(job, own=True)) == DISTURBED:
                    raise CardShared("see above", NOBODY)
                if status:
                    fail(status)
                go_on(run, args)
            else:
                job.do(own=True)
            job.evaluated.discard()  # a job that is sent again evaluates again
    except Cramped:
        logging.warning("its part of the GPU was too small: again with all of it")
        os.execv(sys.executable, [sys.executable, *sys.argv, "--alone"])
    except CardShared:
        if args.again:
            raise
        os.execv(sys.executable, [sys.executable, *sys.argv, AGAIN])
    except leave.Left as left:
        depart(str(left), again=not trained)


def fail(status: int) -> NoReturn:
    """End as the process of the run has, which has told why, unless it was killed."""
    if status < 0:
        raise UserError(f"the process of the run was {of_status(status)}")
    sys.exit(status)


def depart(reason: str, again: bool) -> None:
    """Exit with status 76; ahead of SLURM's time limit, have the job queued ``again`` if an attempt makes some way in its time.

    One that trains takes a step at least. An evaluation begins anew each time, and may be longer than the limit.
    """
    logging.warning("%s: left before the end; the next attempt goes on from here", reason)
    job = os.environ.get("SLURM_JOB_ID")
    if reason == "SIGUSR1" and job and again:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0:
            time.sleep(REQUEUE_SECONDS)
    sys.exit(leave.STATUS)


if __name__ == "__main__":
    call(main)
