"""Time and memory of `selective_recurrence` against a plain associative scan, forward and backward.

  python -m benchmarks.gated            # B 4, L 4,096, 256 channels, 16 states
  python -m benchmarks.gated --quick    # tiny shapes, to see that it works

Prints one line of JSON: medians of contenders that take turns, their ratio, temporary memory, and
the exponent of time over L.
"""

import json
import math
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from pspike_jax.functional import selective_recurrence

QUICK = flags.DEFINE_bool("quick", False, "Tiny shapes.")
ROUNDS = flags.DEFINE_integer("rounds", 7, "Runs of each program.", lower_bound=1)


def plain(x, dt, A, b, c):
    """Scan pairs (decay, state) in parallel over time, a state at each step."""
    decay = jnp.exp(dt[..., None] * A[None, None])
    drive = x[..., None] * b[:, :, None]

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    states = jax.lax.associative_scan(combine, (decay, drive), axis=1)[1]
    return jnp.sum(states * c[:, :, None], axis=-1)


def chunked(x, dt, A, b, c):
    """Run the engine of the package."""
    return selective_recurrence(x, dt, A, b, c, engine="chunked")[0]


def problem(batch, length, channels, states):
    """Return x, dt, A, b, c and a cotangent of y."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    dt = jnp.asarray(np.exp(rng.uniform(np.log(1e-3), np.log(0.1), (batch, length, channels))))
    A = -jnp.tile(jnp.arange(1, states + 1, dtype=jnp.float32)[None], (channels, 1))
    inputs = normal(batch, length, channels), dt.astype(jnp.float32), A
    reads = normal(batch, length, states), normal(batch, length, states)
    return *inputs, *reads, normal(batch, length, channels)


def compile_gradient(function, arguments):
    """Return a compiled program of y and all cotangents."""

    def gradient(*arguments):
        *arguments, y_bar = arguments
        y, pull_back = jax.vjp(function, *arguments)
        return y, *pull_back(y_bar)

    return jax.jit(gradient).lower(*arguments).compile()


def time_in_turns(programs):
    """Return the median seconds of each program; programs map names to (compiled, arguments)."""
    seconds = {name: [] for name in programs}
    for run in range(ROUNDS.value + 1):
        for name, (compiled, arguments) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            if run:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in seconds.items()}


def main(_):
    """Measure and print."""
    sizes = (2, 64, 8, 4) if QUICK.value else (4, 4096, 256, 16)
    batch, length, *widths = sizes
    programs = {}
    contenders = {
        "chunked": (chunked, length),
        "plain": (plain, length),
        "chunked long": (chunked, 4 * length),
    }
    for name, (function, steps) in contenders.items():
        arguments = problem(batch, steps, *widths)
        programs[name] = compile_gradient(function, arguments), arguments
    ours, theirs = (programs[name][0](*programs[name][1]) for name in ("chunked", "plain"))
    apart = lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
    difference = max(map(apart, ours, theirs))
    del ours, theirs
    seconds = time_in_turns(programs)
    memory = {
        name: compiled.memory_analysis().temp_size_in_bytes
        for name, (compiled, _) in programs.items()
    }
    print(json.dumps({
        "sizes": dict(zip(("B", "L", "channels", "states"), sizes, strict=True)),
        "platform": jax.default_backend(),
        "seconds": seconds,
        "speedup": seconds["plain"] / seconds["chunked"],
        "temp_bytes": memory,
        "exponent": math.log(seconds["chunked long"] / seconds["chunked"], 4),
        "difference": difference,
    }))


if __name__ == "__main__":
    app.run(main)
