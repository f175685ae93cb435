"""How far a run is, in a small file that is replaced as it goes: for whoever looks on, never for the run itself."""

import json
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from ablation.files import write_text

EVERY_SECONDS = 1.0
LATE_STEPS = 20  # whose median is the present speed


class Progress:
    """``state/progress.json`` of a run's folder; of several processes one ``writes``."""

    def __init__(self, folder: Path, total_steps: int, samples_per_step: int, writes: bool = True):
        self.path, self.writes = folder / "state" / "progress.json", writes
        self.total, self.samples = total_steps, samples_per_step
        self._written, self._phase = 0.0, ""

    def tell(self, phase: str, step: int, loss: float | None, seconds: list[float], memory_gib: float | None) -> None:
        """``phase``: load, train, preview or save; ``step``: steps done; ``seconds`` of each; ``memory_gib`` at its peak."""
        now = time.monotonic()
        if not self.writes or (phase == self._phase and now - self._written < EVERY_SECONDS):
            return
        self._written, self._phase = now, phase
        speed = median(seconds[-LATE_STEPS:]) if seconds else None
        self._replace(
            {
                "time": round(time.time(), 3),
                "phase": phase,
                "step": step,
                "total_steps": self.total,
                "loss": loss,
                "step_s": speed,
                "samples_per_s": self.samples / speed if speed else None,
                "memory_gib": memory_gib,
            }
        )

    def _replace(self, content: dict[str, Any]) -> None:
        """Not synced, and a full disk is no reason to stop: only the view is lost."""
        with suppress(OSError):
            write_text(self.path, json.dumps(content), durable=False)
