"""How a process of the main job finds the others, and where it keeps compiled programs: flags."""

import jax
from absl import flags

from pspike_jax.training.distributed import start_processes

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where JAX cannot find it by itself."
)
PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes, with --coordinator.")
PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
START_TIMEOUT = flags.DEFINE_integer("start_timeout", 300, "Seconds to wait for the others.")
HEARTBEAT = flags.DEFINE_integer("heartbeat", 60, "Seconds until a silent process counts as dead.")
COMPILE_CACHE = flags.DEFINE_string(
    "compile_cache", None, "Folder of compiled programs, for a faster start the next time."
)
PROFILE_STEPS = flags.DEFINE_list(
    "profile_steps", None, "FIRST,LAST: steps that JAX's profiler writes to WORKDIR/profile."
)


def start() -> None:
    """Join the processes of the job that the flags, or the environment, describe."""
    if COMPILE_CACHE.value is not None:
        jax.config.update("jax_compilation_cache_dir", COMPILE_CACHE.value)
    start_processes(
        coordinator=COORDINATOR.value,
        processes=PROCESSES.value,
        process=PROCESS.value,
        timeout=START_TIMEOUT.value,
        heartbeat=HEARTBEAT.value,
    )


def profile_steps() -> tuple[int, int] | None:
    """Return the first and last step to profile, or None."""
    if PROFILE_STEPS.value is None:
        return None
    try:
        first, last = map(int, PROFILE_STEPS.value)
    except ValueError:
        raise ValueError(
            f"--profile_steps is {PROFILE_STEPS.value}, expected FIRST,LAST"
        ) from None
    return first, last
