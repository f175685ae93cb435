"""Which of several processes failed first. Its error is the run's; what the others meet because of it is not."""

import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablation.errors import UserError

# The words of gloo, NCCL and torch's store where another process is gone or does not come.
LOST = re.compile(r"gloo|NCCL|TCPStore|clients joined|[Cc]onnection (closed|reset|refused)|Broken pipe|[Tt]imed out")
LATE = re.compile(r"[Tt]imed out|timeout|clients joined")
GRACE_SECONDS = 5.0  # in which the process that is to blame, or who watches it, tells so first


def claim(report: Path, rank: int, error: str) -> bool:
    """Tell of the failure of ``rank``; whether it is the first, which alone counts. For all nodes that share the file.

    A full disk may keep it from telling; then it counts, too.
    """
    own = report.with_name(f"{report.name}.{rank}.{os.getpid()}")
    try:
        own.write_text(json.dumps({"rank": rank, "error": error}), encoding="utf-8")
        os.link(own, report)  # whole or not at all, also on a network's file system
    except FileExistsError:
        own.unlink()
        return False
    except OSError:
        sys.stderr.write(f"process {rank + 1}: {error}\n")
    own.unlink(missing_ok=True)
    return True


def claimed(report: Path) -> tuple[int, str] | None:
    """The process that failed first, and its error."""
    if not report.is_file():
        return None
    content = json.loads(report.read_text(encoding="utf-8"))
    return content["rank"], content["error"]


@contextmanager
def reporting(report: Path, rank: int, patience: float) -> Iterator[None]:
    """Around the work of a process: what it raises is told, and the process ends at once, with status 1.

    At once, since the others wait for it, and taking torch down takes seconds. ``patience``: minutes that they wait.
    """
    try:
        yield
    except Exception as error:
        consequence = isinstance(error, RuntimeError | OSError) and LOST.search(str(error)) is not None
        if consequence:
            time.sleep(GRACE_SECONDS)
        if claim(report, rank, _words(error, consequence, patience)) and not isinstance(error, UserError):
            traceback.print_exc()
        logging.shutdown()
        sys.stderr.flush()
        os._exit(1)


def _words(error: Exception, consequence: bool, patience: float) -> str:
    if isinstance(error, UserError):
        return str(error)
    line = traceback.format_exception_only(error)[-1].strip().partition("\n")[0]
    if not consequence:
        return line
    if LATE.search(str(error)):
        return f"another process did not come for {patience:g} minutes (compute.patience_min): it hangs, or its node ({line})"
    return f"the connection to another process was lost ({line})"


def of_status(status: int) -> str:
    """What an exit status says of a process that told nothing."""
    if status > 0:
        return f"exited with status {status}, without a word"
    name = signal.Signals(-status).name
    hint = {"SIGKILL": "; out of host memory?", "SIGABRT": "; see above (NCCL does so where another process does not come)"}
    return f"killed by {name}{hint.get(name, '')}"
