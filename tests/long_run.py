"""Train for many steps and watch the memory of the process.

  python tests/long_run.py --steps=10000 --output=experiments/results/checks/long_run.json

What a step, a line of metrics or a validation leaves behind would show as a slope. A checkpoint,
here each 500 steps, leaves about 50 kB in TensorStore (`Spec.to_json`, by tracemalloc).
The first fifth of the run is warming up: compiling, and what is made once. Before each look the
allocator gives back what it keeps free: how its arenas fill is not what a run holds.
"""

import argparse
import ctypes
import gc
import pathlib
import resource
import tempfile
import time

import numpy as np
from records import write_record
from tiny import TinySpiking, one_device, tiny_settings, tiny_task

from pspike_jax.training import fit
from pspike_jax.training.run import Prefetch

SAMPLES = 40
MOST = 256  # bytes a step: a history in memory, of a line every 10 steps, would take more


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # of glibc
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def watch(steps: int) -> list[tuple[int, int]]:
    """Train; return steps, and bytes held before each of them."""
    samples, take = [], Prefetch.next

    def watched(batches):
        step = batches._asked
        if step % (steps // SAMPLES) == 0:
            samples.append((step, resident()))
        return take(batches)

    Prefetch.next = watched
    settings = tiny_settings(steps=steps, log_every=10, eval_every=500, checkpoint_every=1000)
    with tempfile.TemporaryDirectory() as workdir:
        fit(TinySpiking(), tiny_task(), settings, workdir=workdir, mesh=one_device())
    return samples


def main() -> None:
    """Run as long as the command line asks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10_000, help="at least 1,000")
    parser.add_argument("--output", help="file of the record")
    asked = parser.parse_args()
    started = time.monotonic()
    samples = watch(asked.steps)
    warm = np.array(samples[len(samples) // 5 :])
    slope = float(np.polyfit(*warm.T, 1)[0])
    failures = [f"{slope:.0f} bytes a step, expected at most {MOST}"] if slope > MOST else []
    write_record(asked.output, started, {
        "steps": asked.steps, "bytes_per_step": round(slope, 1),
        "mebibytes": {step: round(held / 2**20, 2) for step, held in samples},
        "failures": failures,
    })


if __name__ == "__main__":
    main()
