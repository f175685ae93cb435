"""A run of two processes, a resumed one, one of another user, one whose clock is set: what they write stays whole."""

import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import time
from datetime import datetime
from functools import partial
from pathlib import Path

import launch
import pytest
from faults import survived
from small_vggt import job, prepare, run_of
from test_faults import longer, newest, outcome, started_at, without_paths

from ablation.attempts import Journal
from ablation.systems.vggt.data.scene import ARRAYS
from ablation.training.checkpoints import Checkpoints
from ablation.training.history import History

pytestmark = pytest.mark.fault
NOBODY, GROUP = 61234, 61235  # a user and a group without accounts
PR_SET_KEEPCAPS, CAPABILITIES_V3, DAC_READ_SEARCH = 8, 0x20080522, 1 << 2  # linux/prctl.h, linux/capability.h


@pytest.fixture
def root(scene_root, vggt, tmp_path) -> Path:
    """Made, as all else here unless it says so, with the usual umask."""
    os.umask(0o022)
    return prepare(scene_root, vggt, tmp_path)


# --- processes of a run ------------------------------------------------------------------------------------------------


def slow_removal(flags: Path) -> None:
    """The first process removes an old checkpoint late; another one, if it removes any, lists late and is faster then."""
    remove, listed = shutil.rmtree, Checkpoints._steps

    def rmtree(path, *arguments, **more):
        if Path(path).name.startswith("step-") and Path(path).is_dir():
            if os.environ.get("RANK") == "0":
                (flags / "removing").touch()
                wait_for(flags / "removed")
            remove(path, *arguments, **more)
            (flags / "removed").touch()
        else:
            remove(path, *arguments, **more)

    def steps(self):
        if os.environ.get("RANK") == "1" and len(listed(self)) >= self.keep:
            wait_for(flags / "removing")
        return listed(self)

    Checkpoints._steps, shutil.rmtree = steps, rmtree


def wait_for(flag: Path, limit: float = 2.0) -> None:
    """Until another process has raised a flag, or never will."""
    end = time.monotonic() + limit
    while not flag.exists() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_process_that_is_late_does_not_miss_what_another_removes(root, tiny):
    """Only the first of several removes checkpoints: whoever came second would find them gone."""
    (root / "flags").mkdir()
    begun = time.monotonic()
    run = longer(run_of(root, tiny, gpus=2), steps=7)
    done = launch.train(*job(run, root, "run"), program=launch.SMALL_PARTS, before=partial(slow_removal, root / "flags"))
    assert done.returncode == 0 and (root / "flags/removed").exists(), done.stderr
    assert launch.record(root / "run")["attempts"] == {"count": 1, "repeated_steps": 0}
    row = {"seconds": time.monotonic() - begun, "repeated": 0, "same": "undisturbed"}
    survived("rank that lists while another removes", "local", seen="nothing: one rank removes", **row)


def other_checkpoint() -> None:
    """The second process does not see the newest checkpoint, as where its node shows an older state of the folder."""
    listed = Checkpoints._steps
    Checkpoints._steps = lambda self: listed(self)[: -1 if os.environ.get("RANK") == "1" else None]


def test_processes_that_find_different_checkpoints_do_not_train(root, tiny):
    run = longer(run_of(root, tiny, gpus=2), steps=16)
    launch.kill_after("checkpoint at step 4", *job(run, root, "run"), program=launch.SMALL_PARTS)
    done = launch.train(*job(run, root, "run"), program=launch.SMALL_PARTS, before=other_checkpoint)
    assert done.returncode == 2 and "the processes find different checkpoints (steps " in done.stderr.splitlines()[-1]
    assert Journal(root / "run").events()[-1]["how"] == "failed"


# --- a resumed run -----------------------------------------------------------------------------------------------------


def killed_in_a_checkpoint(step: int) -> None:
    """Killed as it begins to write the checkpoint of ``step``: the history is further than the last one."""
    save = Checkpoints.save

    def dies(self, reached, *states):
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, reached, *states)

    Checkpoints.save = dies


def killed_in_the_cut(moment: str) -> None:
    """Killed when the file that takes the history is opened (and empty), or when it is to take the place of the old one."""
    cut, plain = History.cut, getattr(Path, moment)

    def dies(path, *arguments, **more):
        found = plain(path, *arguments, **more) if moment == "open" else None
        if "history.csv" in path.name and (moment == "replace" or set("wx") & set("".join([*arguments, more.get("mode", "")]))):
            os.kill(os.getpid(), signal.SIGKILL)
        return found if moment == "open" else plain(path, *arguments, **more)

    def with_death(self, steps):
        setattr(Path, moment, dies)
        cut(self, steps)
        setattr(Path, moment, plain)

    History.cut = with_death


def no_room_in_the_cut() -> None:
    """A limit on the size of files, as a quota, that strikes as the history is cut back."""
    cut = History.cut

    def cramped(self, steps):
        was = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, was[1]))
        try:
            cut(self, steps)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, was)

    History.cut = cramped


def test_a_kill_or_a_full_disk_as_the_history_is_cut_back_loses_nothing(root, tiny):
    """The attempt after goes on from the last checkpoint, and counts what is trained again; the end is the same."""
    run = longer(run_of(root, tiny, dropout=0.2), steps=10)
    assert launch.train(*job(run, root, "undisturbed")).returncode == 0
    victim, folder, begun = job(run, root, "victim"), root / "victim", time.monotonic()
    launch.train(*victim, before=partial(killed_in_a_checkpoint, 8))
    assert newest(folder).name == "step-00000006"
    for moment in ("open", "replace"):
        killed = launch.train(*victim, before=partial(killed_in_the_cut, moment))
        assert killed.returncode == -signal.SIGKILL and "resuming after step 6" in killed.stderr, killed.stderr
    full = launch.train(*victim, before=no_room_in_the_cut)
    assert full.returncode == 2 and "it goes on from the last checkpoint" in full.stderr.splitlines()[-1], full.stderr
    done = launch.train(*victim)
    assert done.returncode == 0 and "resuming after step 6" in done.stderr, done.stderr
    assert outcome(folder) == outcome(root / "undisturbed") and started_at(folder) == (6, 2)
    assert launch.record(folder)["attempts"] == {"count": 5, "repeated_steps": 2}
    row = {"seconds": time.monotonic() - begun, "repeated": 2, "same": "bit for bit"}
    survived("killed while the history is cut back", "local", seen="the next attempt says “resuming after step N”", **row)


def test_a_resume_with_nothing_to_cut_does_not_touch_the_history(tmp_path):
    path = tmp_path / "state/history.csv"
    for number in range(3):
        History(path).append({"step": number, "loss": 0.5})
    os.utime(path, (1, 1))
    before = path.stat()
    History(path).cut(3)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with path.open("a") as file:
        file.write("3,0.25")  # torn by a kill
    History(path).cut(3)
    assert len(History(path).rows) == 3 and path.stat().st_size == before.st_size


# --- several users -----------------------------------------------------------------------------------------------------


def as_user(user: int, umask: int) -> None:
    """The process is another user's, of the same group, where this one may be so.

    It can read everything, since Python may lie in a folder of this user's, and write what that user can.
    """
    os.umask(umask)
    if os.getuid() == 0:
        multiprocessing.current_process()._config.pop("tempdir", None)  # of the process that this one was forked from
        kernel = ctypes.CDLL(None)
        kernel.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(user)
        kernel.capset((ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)(DAC_READ_SEARCH, DAC_READ_SEARCH))


def shared(folder: Path) -> None:
    """A folder of the group, as an administrator makes it."""
    for each in (folder, *folder.rglob("*")):
        if os.getuid() == 0:
            os.chown(each, -1, GROUP)
        each.chmod(0o2775 if each.is_dir() else 0o664)
    for above in folder.parents:
        if not above.stat().st_mode & 0o005:  # pytest's, for the owner alone; one more in one of several processes
            above.chmod(0o755)


def wrong_modes(folder: Path, umask: int) -> dict[str, str]:
    """Files and folders whose mode is not that of new ones."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) & 0o777 for path in folder.rglob("*")}
    right = {True: 0o777 & ~umask, False: 0o666 & ~umask}
    return {str(path): oct(mode) for path, mode in modes.items() if mode != right[path.is_dir()]}


@pytest.mark.parametrize("full", [False, True], ids=["adapter", "weights"])
def test_all_that_a_finished_run_leaves_has_modes_by_the_umask(root, tiny, full):
    how = {"train": {"full": ["camera_head"]}} if full else None
    run = run_of(root, tiny, how=how)
    base = root / "base.json"
    base.write_text(json.dumps({"metrics": {}, "items": []}))
    done = launch.train(*job(run, root, "run"), base=base, before=partial(os.umask, 0o027))
    assert done.returncode == 0, done.stderr
    saved = root / "run" / ("model.safetensors" if full else "adapter/adapter_model.safetensors")
    assert saved.is_file() and (root / "run/state/lease.json").is_file() and list((root / "hashes").iterdir())
    assert not wrong_modes(root / "run", 0o027) and not wrong_modes(root / "hashes", 0o027)


def test_what_is_prepared_has_modes_by_the_umask(root):
    assert (root / "hall" / ARRAYS).is_file() and not wrong_modes(root / "hall", 0o022)


def test_a_second_user_of_a_shared_checkout_goes_on_or_is_told_in_one_line(root, tiny):
    """With the group's rights (umask 002) another user's run is taken up; without them, an error names file and remedy."""
    run, begun = longer(run_of(root, tiny), steps=10), time.monotonic()
    shared(root)
    launch.kill_after("checkpoint at step 4", *job(run, root, "run"), before=partial(as_user, NOBODY, 0o002))
    done = launch.train(*job(run, root, "run"), before=partial(as_user, NOBODY + 1, 0o002))
    assert done.returncode == 0 and "resuming after step" in done.stderr, done.stderr
    launch.kill_after("checkpoint at step 4", *job(run, root, "closed"), before=partial(as_user, NOBODY, 0o022))
    if os.getuid() != 0:
        (root / "closed/state/lease.json").chmod(0o444)
    refused = launch.train(*job(run, root, "closed"), before=partial(as_user, NOBODY + 1, 0o022))
    error = refused.stderr.splitlines()[-1]
    assert refused.returncode == 2 and error.startswith("error: ") and "Traceback" not in refused.stderr
    assert "lease.json: Permission denied" in error and "umask 002" in error
    seen = f"with umask 002 nothing; else “{without_paths(error)}”"
    row = {"seconds": time.monotonic() - begun, "repeated": started_at(root / "run")[1], "same": "as by one user"}
    survived("second user of a shared checkout", "local", seen=seen, **row)


# --- clocks ------------------------------------------------------------------------------------------------------------


def clock_jumps_back() -> None:
    """From the first optimizer step on the machine's clock is a day behind; the monotonic one goes on."""
    now, record = time.time, History.append

    def jumps(self, row):
        time.time = lambda: now() - 86400
        record(self, row)

    History.append = jumps


def test_a_clock_that_is_set_back_a_day_makes_no_time_negative(root, tiny):
    run, begun = run_of(root, tiny), time.monotonic()
    done = launch.train(*job(run, root, "run"), before=clock_jumps_back)
    assert done.returncode == 0, done.stderr
    times = json.loads((root / "run/manifest.json").read_text())["times"]
    assert datetime.fromisoformat(times["end"]) < datetime.fromisoformat(times["begin"]), "the clock was not set"
    assert 0 < times["seconds"] < 600
    end = Journal(root / "run").events()[-1]
    assert end["event"] == "end" and end["seconds"] == times["seconds"]
    row = {"seconds": time.monotonic() - begun, "repeated": 0, "same": "but for the two dates"}
    survived("the clock jumps back a day", "local", seen="nothing; durations are by a clock that nobody sets", **row)
