"""Decays that change with every step: the engine against a plain associative scan.

  python -m benchmarks.gated

Forward and backward, y and the gradients of all five arguments, of selective state spaces of
Mamba's kind: rates -1 to -N, steps between 0.001 and 0.1. Plain programs of benchmarks/plain.py are
differentiated by JAX. Contenders have to agree at the shape where they are compared; then the
chunked engine is timed against L. Memory is read from the compiled programs: `bytes` in a record is
what a further state at a further step takes, of which an array of all states would take 4.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import plain, timing
from pspike_jax.functional import selective_recurrence

# Of gradients, relative to the largest entry of each array: that of A is a sum over all examples
# and steps, and in the plain scan products of up to L decays near 1 are rounded once a level.
TOLERANCE = 1e-4


class Shape(NamedTuple):
    """Sizes of a selective state space and its batch."""

    batch: int
    L: int
    channels: int
    states: int


PLAIN = {
    "plain associative": plain.associative_selective, "plain sequential": plain.scan_selective
}
COMPARED = Shape(4, 4096, 256, 16)
LENGTHS = (1024, 4096, 16_384)


def chunked(x, dt, A, b, c):
    """Run the engine of the package."""
    return selective_recurrence(x, dt, A, b, c, engine="chunked")[0]


def arguments(shape: Shape) -> tuple[jax.Array, ...]:
    """Return x, dt, A, b, c and a cotangent of y."""
    rng = np.random.default_rng(0)
    normal = lambda *sizes: jnp.asarray(rng.normal(size=sizes), jnp.float32)
    batch, length, channels, states = shape
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(0.1), (batch, length, channels)))
    A = -np.tile(np.arange(1.0, states + 1), (channels, 1))
    return (
        normal(batch, length, channels), jnp.asarray(dt, jnp.float32), jnp.asarray(A, jnp.float32),
        normal(batch, length, states), normal(batch, length, states),
        normal(batch, length, channels),
    )


def gradient(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
    """Return the program of y and the cotangents of all arguments."""

    def program(*arguments):
        *arguments, y_bar = arguments
        y, pull_back = jax.vjp(function, *arguments)
        return y, *pull_back(y_bar)

    return program


def temporary(shape: Shape) -> int:
    """Return the bytes of the engine's program besides arguments and results."""
    batch, length, channels, states = shape
    array = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    wide, narrow = array(batch, length, channels), array(batch, length, states)
    shapes = wide, wide, array(channels, states), narrow, narrow, wide
    return jax.jit(gradient(chunked)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def growth(shape: Shape) -> float:
    """Return what a further state at a further step adds to the engine's memory, in bytes.

    Between L and 4 L, N and 4 N, the mixed difference: what grows with L or with N alone, as inputs
    and their gradients do, is not in it.
    """
    batch, length, channels, states = shape
    sizes = lambda steps, rates: temporary(Shape(batch, steps * length, channels, rates * states))
    added = sizes(4, 4) - sizes(4, 1) - sizes(1, 4) + sizes(1, 1)
    return added / (batch * 3 * length * channels * 3 * states)


def measure(quick: bool) -> list[timing.Record]:
    """Time the contenders at one shape, then the engine against L."""
    compared = Shape(2, 64, 8, 4) if quick else COMPARED
    lengths = (32, 64) if quick else LENGTHS
    how = {"rounds": 3} if quick else {"rounds": 9, "min_rounds": 5, "budget_s": 60.0}
    given = arguments(compared)
    programs = [
        timing.compile_program(name, gradient(function), *given)
        for name, function in (PLAIN | {"chunked": chunked}).items()
    ]
    differences = timing.check_agreement(programs, TOLERANCE)
    setting = compared._asdict() | {"part": "contenders"}
    records = timing.measure(programs, setting=setting, differences=differences, **how)
    records[-1]["bytes"] = growth(compared)
    del programs
    # Lengths take turns, so that what else the machine does strikes all alike.
    sweep = [
        timing.compile_program(str(L), gradient(chunked), *arguments(compared._replace(L=L)))
        for L in lengths
    ]
    rows = timing.measure(sweep, setting=compared._asdict() | {"part": "lengths"}, **how)
    return records + [
        row | {"L": L, "contender": "chunked", "speedup": 1.0} for L, row in zip(lengths, rows)
    ]


if __name__ == "__main__":
    timing.main("gated", measure)
