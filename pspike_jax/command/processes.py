"""How a process of the main job finds the others, and where it keeps compiled programs: flags."""

import argparse

import jax

from pspike_jax.functional.engine_choice import user_cache
from pspike_jax.training.distributed import start_processes


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a job of several processes, of its start and of its profile."""
    job = parser.add_argument_group("many machines (docs/pods.md)")
    job.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0, where JAX cannot find it"
    )
    job.add_argument("--num_processes", type=int, help="with --coordinator")
    job.add_argument("--process_id", type=int, help="of this process, from 0")
    job.add_argument(
        "--start_timeout", type=int, default=300, help="seconds to wait for the others"
    )
    job.add_argument(
        "--heartbeat", type=int, default=60, help="seconds until a silent process counts as dead"
    )
    parser.add_argument(
        "--compile_cache", metavar="DIR",
        help="of compiled programs, for a faster start next time; in the user's cache by default",
    )
    parser.add_argument(
        "--profile_steps", metavar="FIRST,LAST", type=_steps,
        help="steps that JAX's profiler writes to WORKDIR/profile",
    )


def start(asked: argparse.Namespace) -> None:
    """Join the processes of the job that the flags, or the environment, describe."""
    keep_programs(asked.compile_cache)
    start_processes(
        coordinator=asked.coordinator,
        processes=asked.num_processes,
        process=asked.process_id,
        timeout=asked.start_timeout,
        heartbeat=asked.heartbeat,
    )


def keep_programs(folder: str | None) -> None:
    """Let JAX keep compiled programs in a folder; None: in JAX's own, or in the user's cache.

    JAX_ENABLE_COMPILATION_CACHE=0 keeps none.
    """
    if folder is None:
        if jax.config.jax_compilation_cache_dir is not None:
            return
        own = user_cache() / "programs"
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError:  # a start is then as slow as the first one
            return
        folder = str(own)
    jax.config.update("jax_compilation_cache_dir", folder)


def _steps(text: str) -> tuple[int, int]:
    first, last = map(int, text.split(","))
    return first, last
