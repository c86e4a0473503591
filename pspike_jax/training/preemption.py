"""Being told to stop: by SIGTERM, which schedulers send before they take a machine, or Ctrl-C."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """The run has saved its state, because it was told to stop; the same command goes on.

    Not caught, it ends the program with status 143, which says "ended by SIGTERM": Slurm and
    Kubernetes show it as that, and restart policies take codes from 128 on for worth another try.
    """

    def __init__(self, step: int):
        """Say after how many updates it stopped."""
        super().__init__(EXIT_CODE)
        self.step = step

    def __str__(self) -> str:
        return f"told to stop: saved after step {self.step}; the same command goes on from there"


class StopSignal:
    """Whether the run was told to stop; all processes hear of it at the same moment.

    Used as a context: outside, SIGTERM and SIGINT do what they did before. Where there are many
    processes, JAX's runtime takes SIGTERM and settles a moment that none of them has passed yet. A
    first Ctrl-C asks for a stop after the step; a second one stops at once, but never amid the
    start of a save, whose threads would wait for ever.
    """

    def __init__(self):
        """Not told yet."""
        self.interrupted = False
        self._told = False
        self._moment = 0
        self._shielded = False
        self._before = {}

    def __enter__(self) -> "StopSignal":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            hear = {signal.SIGTERM: self._hear, signal.SIGINT: self._hear_interrupt}
            for number, heard in hear.items():
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, heard) or signal.SIG_DFL
        return self

    def __exit__(self, *_) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def requested(self) -> bool:
        """Return whether to stop now; every process must ask equally often."""
        if jax.process_count() > 1 and not self._told:
            self._moment += 1
            self._told = multihost_utils.reached_preemption_sync_point(self._moment)
        return self._told

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Let no Ctrl-C interrupt a block."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False

    def _hear(self, *_) -> None:
        self._told = True

    def _hear_interrupt(self, *_) -> None:
        if self.interrupted and not self._shielded:
            raise KeyboardInterrupt
        if not self.interrupted:
            print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr)
        self.interrupted = self._told = True
