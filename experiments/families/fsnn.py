"""f-SNN: what neurons of fractional order remember, and what a step of a stream costs.

Values of a stream are compared with a sum over the whole past in float64; the seconds of a step, at
several ages of the stream, with those of a sum over as many remembered values.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.families import kept, table
from pspike_jax.analysis import plots
from pspike_jax.analysis.canvas import grid
from pspike_jax.functional.fractional import fractional_memory
from pspike_jax.functional.fractional_solve import solve
from pspike_jax.functional.fractional_stream import start_stream, stream_memory, stream_step

CAPTION = (
    "Left, what a pulse leaves in membranes of order 1, .9, .6 and .3: an exponential, then power "
    "laws. Right, the time of a step: constant in a stream, not in a sum over the past"
)
ORDERS, TAU = (1.0, 0.9, 0.6, 0.3), 4.0
RULE, ORDER, FEATURES = "gl", 0.6, 64  # of the timed stream
AGES, STEPS, REPEATS = (100, 1000, 10_000, 100_000), 100, 15


def relaxation(v: jax.Array, current: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the rate of change of a membrane that leaks, and its value."""
    return (current - v) / TAU, v


def runs(asked: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return pulses, exactness and cost."""
    ages, length = ((20, 40), 50) if asked.smoke else (AGES, 20_000)
    return {
        "pulse": functools.partial(pulse, min(length, 400)),
        "exactness": functools.partial(exactness, length),
        "cost": functools.partial(cost, ages),
    }


def pulse(length: int) -> dict[str, Any]:
    """Return what a pulse of one step has left after so many, by order."""
    drive = jnp.zeros((length, 1, 1), jnp.float32).at[0].set(1.0)
    steps = np.unique(np.geomspace(1, length - 1, 60).astype(int))
    left = {}
    for order in ORDERS:
        memory = fractional_memory(RULE, order, length - 1)
        values, _ = solve(memory, relaxation, drive, drive[0] * 0)
        left[str(order)] = kept(np.abs(values[steps, 0, 0]))
    return {"steps": steps.tolist(), "left": left}


def exactness(length: int) -> dict[str, Any]:
    """Compare a stream with a float64 sum over the whole past, after each step."""
    x = np.random.default_rng(0).normal(0.3, 1, length).astype(np.float32)
    memory = stream_memory(RULE, ORDER)
    step = jax.jit(functools.partial(stream_step, memory, rate=relaxation))
    begin = start_stream(memory, jnp.zeros((1, 1), jnp.float32))
    scan = jax.jit(lambda x: jax.lax.scan(lambda trace, x: step(trace, x=x), begin, x)[1])
    streamed = np.asarray(scan(x[:, None, None]))[:, 0, 0]
    weights = np.cumprod(1 - (1 + ORDER) / np.arange(1, length + 1))
    y = np.zeros(length)
    for k in range(length - 1):
        rate = (float(x[k]) - y[k]) / TAU
        y[k + 1] = rate - weights[: k + 1] @ y[k::-1]
    return {"length": length, "largest_error": float(np.abs(streamed - y).max() / np.abs(y).max())}


def cost(ages: tuple[int, ...]) -> dict[str, Any]:
    """Time steps of a stream of each age, and sums over as many remembered values."""
    memory = stream_memory(RULE, ORDER)
    begin = start_stream(memory, jnp.zeros((1, FEATURES), jnp.float32))

    @functools.partial(jax.jit, static_argnums=1)
    def advance(trace, steps):
        x = jnp.ones((steps, 1, FEATURES), jnp.float32)
        step = functools.partial(stream_step, memory, rate=relaxation)
        return jax.lax.scan(lambda trace, x: (step(trace, x=x)[0], None), trace, x)[0]

    @jax.jit
    def remember(weights, past):
        return jnp.einsum("k,kf->f", weights, past)

    found = []
    for age in ages:
        trace = advance(begin, age)
        weights = fractional_memory(RULE, ORDER, age).weights[:, 0]
        past = jnp.ones((age, FEATURES), jnp.float32)
        found.append({
            "age": age,
            "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(trace)),
            "stream_seconds": seconds(lambda: advance(trace, STEPS)) / STEPS,
            "past_bytes": past.nbytes,
            "sum_seconds": seconds(lambda: remember(weights, past)),
        })
    return {"features": FEATURES, "order": ORDER, "ages": found}


def seconds(run: Callable[[], Any]) -> float:
    """Return the median time of a call, once it is compiled."""
    jax.block_until_ready(run())
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def page(rows: dict[str, Any]) -> str:
    """Write the cost of a step by the age of the stream."""
    exact, timed = rows["exactness"], rows["cost"]
    lines = [
        (f"{one['age']:,}", f"{1e6 * one['stream_seconds']:.1f}", f"{one['state_bytes']:,}",
         f"{1e6 * one['sum_seconds']:.1f}", f"{one['past_bytes']:,}")
        for one in timed["ages"]
    ]
    return (
        f"A stream of {exact['length']:,} steps stays within {exact['largest_error']:.0e} of the "
        f"largest value of a float64 sum over its whole past (rule `{RULE}`, order {ORDER}). A "
        f"step of {timed['features']} neurons in a compiled loop, median of {REPEATS} times "
        f"{STEPS} steps, and a sum, one call, on a machine that did other work too; the state is "
        "of one size by construction:\n\n"
        + table(
            ("steps before", "stream, µs a step", "its state, bytes", "sum over the past, µs",
             "the past, bytes"), *lines,
        )
    )


def draw(rows: dict[str, Any]):
    """Draw pulses, and times of a step."""
    figure, axes = grid(1, 2, height=3.2, sharey=False, sharex=False)
    left, right = axes[0]
    for (order, values), colour in zip(rows["pulse"]["left"].items(), plots.PALETTE):
        left.loglog(rows["pulse"]["steps"], values, color=colour, label=f"order {float(order):g}")
    left.set(xlabel="steps after the pulse", ylabel="what is left", ylim=(1e-6, 1))
    left.legend(frameon=False, fontsize=9)
    ages = [one["age"] for one in rows["cost"]["ages"]]
    lines = ("stream_seconds", "stream", "o-"), ("sum_seconds", "sum over the past", "s--")
    for (field, name, style), colour in zip(lines, plots.PALETTE):
        times = [1e6 * one[field] for one in rows["cost"]["ages"]]
        right.loglog(ages, times, style, color=colour, markersize=4, label=name)
    right.set(xlabel="steps before", ylabel="µs a step")
    right.legend(frameon=False, fontsize=9)
    return figure
