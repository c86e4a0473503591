"""Where the time of a run goes, and a profile of chosen steps."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import jax

from pspike_jax.analysis.files import local_folder

PARTS = ("data", "compute", "save")


class Clock:
    """Seconds spent in each part of the steps since the last line of metrics.

    "data" is waiting for a batch. "compute" is dispatching a step and waiting for the one before
    it, so the device's time where it is the slower one. "save" is what a checkpoint keeps steps
    waiting: the rest of it runs beside them. Validation belongs to none of these.
    """

    def __init__(self):
        """Start at zero."""
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._steps = 0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a block to one of `PARTS`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    def end_step(self) -> None:
        """Count a step."""
        self._steps += 1

    def take(self) -> dict[str, float]:
        """Return the entries of a line, in seconds per step, and start again.

        "time/waiting_for_data" is the share of "data" in their sum.
        """
        total = sum(self._seconds.values())
        line = {f"time/{name}": s / max(1, self._steps) for name, s in self._seconds.items()}
        line["time/waiting_for_data"] = self._seconds["data"] / total if total else 0.0
        self.__init__()
        return line


class Profile:
    """A profile of some steps for TensorBoard or Perfetto, written by JAX."""

    def __init__(self, folder: str | os.PathLike, steps: tuple[int, int] | None):
        """Plan a profile of the first to the last of `steps`, or of none."""
        if steps is not None and not 1 <= steps[0] <= steps[1]:
            raise ValueError(f"profile_steps is {steps}, expected FIRST <= LAST, from 1")
        self._folder, self._steps = folder, steps
        self._running = contextlib.ExitStack()

    def before(self, step: int) -> None:
        """Begin, if the step about to be done is the first of the profile."""
        if self._steps is not None and step == self._steps[0]:
            here = self._running.enter_context(local_folder(self._folder))
            jax.profiler.start_trace(os.fspath(here))
            self._running.callback(jax.profiler.stop_trace)

    def after(self, step: int, results: Any) -> None:
        """End, when `results` are there, if this was the last step of the profile."""
        if self._steps is not None and step == self._steps[1]:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Write what there is."""
        self._running.close()
