"""Diagonal-plus-low-rank layers, forward and backward: `auto` beside both of its engines.

  python -m benchmarks.dplr_engines

Shapes are those of presets and their neighbours: psMNIST's (B 16, L 784, H 400, N 64), short and
long sequences, small states, one example and many. Outputs and gradients have to agree first.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from pspike_jax.nn.mixers import DPLRSSM

ENGINES = ("auto", "fft", "chunked")
# Of outputs and gradients, relative to the largest entry of each array: kernels of slow poles are
# sums of thousands of float32 products in other orders.
TOLERANCE = 2e-3


class Shape(NamedTuple):
    """Sizes of a layer and its batch."""

    batch: int
    L: int
    H: int
    N: int


def grid(quick: bool) -> Iterator[Shape]:
    """Yield the shapes."""
    if quick:
        yield Shape(2, 20, 4, 4)
        return
    yield Shape(16, 784, 400, 64)
    for state in (8, 16, 32):
        yield Shape(16, 784, 100, state)
    yield Shape(32, 64, 64, 16)
    for state in (16, 32, 64):
        yield Shape(8, 2048, 128, state)
    yield Shape(1, 784, 64, 64)
    yield Shape(2, 8192, 64, 64)


def program(shape: Shape, engine: str):
    """Return the layer of an engine, and its arguments."""
    layer = DPLRSSM(shape.H, shape.N, True, False, True, 1e-3, 1e-1, shape.L, engine)
    rng = np.random.default_rng(0)
    u = jnp.asarray(rng.normal(size=(shape.batch, shape.L, shape.H)), jnp.float32)
    variables = nn.meta.unbox(jax.jit(layer.init)(jax.random.key(0), u))

    def loss(variables, u):
        y = layer.apply(variables, u)[0]
        return jnp.mean(jnp.square(y)), y

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), (variables, u)


def measure(quick: bool) -> list[timing.Record]:
    """Time all shapes."""
    records = []
    for shape in grid(quick):
        made = {engine: program(shape, engine) for engine in ENGINES}
        programs = [
            timing.compile_program(engine, function, *given)
            for engine, (function, given) in made.items()
        ]
        differences = timing.check_agreement(programs, TOLERANCE)
        measure_all = functools.partial(timing.measure, rounds=3) if quick else timing.measure
        records += measure_all(programs, setting=shape._asdict(), differences=differences)
    return records


if __name__ == "__main__":
    timing.main("dplr_engines", measure)
