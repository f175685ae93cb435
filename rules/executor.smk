# Where the jobs run: the executor by its name, what it must share with this machine, and how SLURM's programs are stood by.
import os
import signal
import sys
import threading
from pathlib import Path

from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
from snakemake_interface_executor_plugins.settings import SharedFSUsage


def asked_executor():
    """The executor's name, from the command line or its profile; Snakemake itself sets it only after it has read the rules."""
    frame = sys._getframe()
    while frame and frame.f_code.co_name != "args_to_api":
        frame = frame.f_back
    if frame:
        return frame.f_locals["args"].executor or "local"
    # Started by Snakemake's Python interface, which names it nowhere yet.
    return "local" if workflow.resource_settings.nodes is None else "slurm"


EXECUTOR = asked_executor()
LOCAL = EXECUTOR in ("local", "dryrun", "touch")
SLURM = EXECUTOR.startswith("slurm")  # the other half of its plugin: slurm-jobstep


def not_shared():
    """What the jobs would not share with this machine, or find elsewhere than where they look for it."""
    settings = workflow.storage_settings
    if settings.default_storage_provider is not None:
        return f"--default-storage-provider {settings.default_storage_provider}"
    plugin = ExecutorPluginRegistry().get_plugin(EXECUTOR)
    if plugin.common_settings.implies_no_shared_fs:
        return f"--executor {EXECUTOR}"
    needed = {
        SharedFSUsage.PERSISTENCE,
        SharedFSUsage.INPUT_OUTPUT,
        SharedFSUsage.SOURCES,
    }
    absent = sorted(
        one.item_to_choice() for one in needed - set(settings.shared_fs_usage)
    )
    return f"--shared-fs-usage without {' '.join(absent)}" if absent else None


if workflow.is_main_process and (unshared := not_shared()):
    sys.exit(
        f"error: {unshared}: runs need one file system for all their jobs, with locks, as they go on from files that are no outputs"
        " (checkpoints, leases); mount a volume where all of them see it and run Snakemake on it, in the machine or pod that has"
        " the GPUs (--profile local) or with an executor whose nodes share it (docs/cluster.md)"
    )
# For profiles/slurm/bin/sbatch: it submits jobs while this pipe exists, and reports through it what it waits for.
os.environ.pop("SNAKEMAKE_SENDS", None)
SENDS = Path(workflow.snakemake_tmp_dir, "sends")
if workflow.is_main_process and SLURM:
    os.environ.update(SNAKEMAKE_SENDS=str(SENDS))
# Once, also where several modules are this workflow.
if workflow.is_main_process and SLURM and not SENDS.exists():
    os.mkfifo(SENDS)
    pipe = os.open(SENDS, os.O_RDWR)  # at both ends, so that it never ends

    def pass_on():
        while True:
            for line in os.read(pipe, 1 << 16).decode(errors="replace").splitlines():
                logger.warning(line)

    threading.Thread(target=pass_on, daemon=True).start()

    def interrupted(number, frame):
        """Jobs that wait to be sent stay unsent; Snakemake's plugin would send them after those in the queue are cancelled."""
        SENDS.unlink(missing_ok=True)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupted)
