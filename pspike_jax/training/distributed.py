"""Many processes as one program: JAX's own runtime, behind one function.

Every process runs the same command. Process 0 alone writes files that are not checkpoints. A
process that dies stops the others: their collective fails, or at the latest the coordinator misses
its heartbeats.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

REMIND_SECONDS = 30.0
NOT_STARTED = 69  # EX_UNAVAILABLE of sysexits.h


def start_processes(
    *,
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    timeout: int,
    heartbeat: int,
) -> None:
    """Join this process with the others of its job; call it before anything uses a device.

    Cloud TPU, Slurm's srun, Open MPI and JobSets on Kubernetes need no options: JAX finds the
    others. Where there are no options and no such environment, the job is this process alone.

    Args:
      coordinator: HOST:PORT of process 0, reached by all; or None.
      processes: how many there are; or None.
      process: number of this one, from 0; or None.
      timeout: seconds to wait for the others to start.
      heartbeat: seconds without a sign of life after which a process counts as dead.

    Raises:
      ValueError: some of the first three are given and others not, or they do not fit.
    """
    options = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in options.items() if value is None]
    if jax.distributed.is_initialized():
        return
    limits = {
        "initialization_timeout": 2 * timeout,
        "heartbeat_timeout_seconds": heartbeat,
        "shutdown_timeout_seconds": heartbeat,
    }
    if len(missing) == len(options):
        with _deadline("this process", "the others of its job", timeout):
            try:
                jax.distributed.initialize(**limits)
            except ValueError:  # JAX knows of no environment that would tell
                if "JAX_COORDINATOR_ADDRESS" in os.environ:
                    raise
                return
            except RuntimeError as error:
                if "must be called before" in str(error):  # a device is in use: too late to join
                    return
                raise
    elif missing:
        raise ValueError(f"{missing} not given, expected all of {list(options)} or none")
    else:
        _check(coordinator, processes, process)
        me = f"process {process} of {processes}"
        others = f"processes 0 to {processes - 1} at {coordinator}"
        with _deadline(me, others, timeout):
            jax.distributed.initialize(coordinator, processes, process, **limits)
    if jax.process_count() > 1:
        _say(f"process {jax.process_index()} of {jax.process_count()}: all have started")


def _check(coordinator: str, processes: int, process: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"coordinator is {coordinator!r}, expected HOST:PORT")
    if processes < 1 or not 0 <= process < processes:
        raise ValueError(
            f"process is {process} of {processes} processes, expected 0 to {processes - 1}"
        )


@contextlib.contextmanager
def _deadline(who: str, whom: str, timeout: float) -> Iterator[None]:
    """Say from time to time who waits for whom; end the process when the time is over.

    JAX's own timeout aborts the process from within a call that no exception leaves.
    """
    done, start = threading.Event(), time.monotonic()

    def watch():
        while not done.wait(min(REMIND_SECONDS, timeout)):
            waited = time.monotonic() - start
            _say(f"{who} has waited {waited:.0f} of {timeout} s for {whom}")
            if waited >= timeout:
                _say(
                    f"{who} gives up: were all processes started, with the same coordinator and "
                    "number of processes, and does a firewall let them through?"
                )
                os._exit(NOT_STARTED)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Add to what the runtime raises in one of many processes what it most likely means."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() > 1:
            error.add_note(
                f"process {jax.process_index()} of {jax.process_count()} stops: most likely "
                "another process has ended, and its output says why. Start the same command again "
                "everywhere: the run goes on from its newest whole checkpoint."
            )
        raise


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def is_primary() -> bool:
    """Return whether this process writes what is written once."""
    return jax.process_index() == 0


def broadcast(number: int) -> int:
    """Return process 0's number, of the range of int32, in every process; all must call it."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def gather(tree: Any) -> Any:
    """Return arrays, split over devices of any process, whole; all processes must call it."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


def barrier(name: str) -> None:
    """Wait until every process is at the place of this name."""
    multihost_utils.sync_global_devices(name)
