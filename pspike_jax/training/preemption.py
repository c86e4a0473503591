"""Being told to stop: SIGTERM, which schedulers send before they take a machine away."""

import signal
import threading

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """The run has saved its state, because it was told to stop; the same command goes on.

    Not caught, it ends the program with status 143, which says "ended by SIGTERM": Slurm and
    Kubernetes show it as that, and restart policies take codes from 128 on for worth another try.
    """

    def __init__(self, step: int):
        """Say where it stopped.

        Args:
          step: updates done.
        """
        super().__init__(EXIT_CODE)
        self.step = step

    def __str__(self) -> str:
        return f"told to stop: saved after step {self.step}; the same command goes on from there"


class StopSignal:
    """Whether the run was told to stop; all processes hear of it at the same moment.

    Used as a context: outside, SIGTERM does what it did before. Where there are many processes,
    JAX's runtime takes the signal and settles a moment that none of them has passed yet.
    """

    def __init__(self):
        """Not told yet."""
        self._told = False
        self._moment = 0
        self._before = None

    def __enter__(self) -> "StopSignal":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def requested(self) -> bool:
        """Return whether to stop now; every process must ask equally often."""
        if jax.process_count() > 1 and not self._told:
            self._moment += 1
            self._told = multihost_utils.reached_preemption_sync_point(self._moment)
        return self._told

    def _hear(self, *_) -> None:
        self._told = True
