"""Lanes of a segment: parts of its time that run side by side, as further rows of a batch.

A lane is run from a zero state first, which tells what it adds to a state that passes through, and
then from the state that does reach it. Where the work of a step fills the machine, on CPUs, there
is one lane, and no first run.

States are (R, N, E): rows of a lane, an example and a group; then states; channels last, so that
sums over N add whole rows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Steps of a lane on an accelerator, where lanes fill the machine and steps follow each other.
LANE_STEPS = 16


class Selective(NamedTuple):
    """What enters at each step; channels in G groups of E, each of which shares b and c.

    Attributes:
      x: (B, L, G, E).
      dt: (B, L, G, E), the factor of the rates.
      b: (B, L, G, N).
      c: (B, L, G, N).
    """

    x: jax.Array
    dt: jax.Array
    b: jax.Array
    c: jax.Array


class Steps(NamedTuple):
    """The same in lanes.

    Attributes:
      x, dt: (T, R, E).
      b, c: (T, R, N).
      cut: (T, R), whether the state becomes zero before this step; None without resets.
    """

    x: jax.Array
    dt: jax.Array
    b: jax.Array
    c: jax.Array
    cut: jax.Array | None = None


def to_lanes(lanes: int, inputs: Selective, resets: jax.Array | None, dtype: jnp.dtype) -> Steps:
    """Cut a segment into lanes.

    Args:
      lanes: a divisor of the segment's steps.
      inputs: of the segment.
      resets: (B, S) bool or None.
      dtype: of the states.

    Returns:
      Its steps.
    """
    x, dt, b, c = (to_rows(lanes, array.astype(dtype)) for array in inputs)
    if resets is None:
        return Steps(x, dt, b, c)
    cut = jnp.broadcast_to(resets[:, :, None, None], (*inputs.x.shape[:3], 1))
    return Steps(x, dt, b, c, to_rows(lanes, cut)[..., 0])


def to_rows(lanes: int, array: jax.Array) -> jax.Array:
    """Return (T, R, F) of an array (B, lanes T, G, F)."""
    batch, length, groups, features = array.shape
    array = array.reshape(batch, lanes, length // lanes, groups, features)
    return array.transpose(2, 1, 0, 3, 4).reshape(length // lanes, -1, features)


def from_rows(lanes: int, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return (B, lanes T, G, F), of this shape, of an array (T, R, F)."""
    batch, length, groups = shape[:3]
    array = array.reshape(length // lanes, lanes, batch, groups, array.shape[-1])
    return array.transpose(2, 1, 0, 3, 4).reshape(batch, length, groups, -1)


def rates_of_rows(rates: jax.Array, rows: int) -> jax.Array:
    """Return rates (G, N, E) as (1, N, E), or as (R, N, E) where groups differ in them."""
    if rates.shape[0] == 1:
        return rates
    repeated = jnp.broadcast_to(rates[None], (rows // rates.shape[0], *rates.shape))
    return repeated.reshape(rows, *rates.shape[1:])


def losses_of(steps: Steps, rates: jax.Array) -> jax.Array:
    """Return exp(dt A) - 1 of steps, (T, R, N, E)."""
    z = steps.dt[:, :, None] * rates[None]
    return jnp.expm1(z) if z.dtype == jnp.float64 else _expm1(z)


def _expm1(z):
    """Return exp(z) - 1 in float32, to 1e-7 of itself; on CPUs faster than XLA's.

    exp(z) = 2^k exp(r) with |r| <= log(2) / 2, where a polynomial gives exp(r) - 1.
    """
    z = jnp.clip(z, -87.0, 88.0)  # 2^k is a normal number; below, the result is -1 all the same
    k = jnp.round(z / math.log(2))
    r = (z - k * 0.693359375) + k * 2.12194440e-4  # log(2) in two parts, the first of 10 bits
    tail = 1 / math.factorial(7)
    for power in range(6, 1, -1):
        tail = tail * r + 1 / math.factorial(power)
    scale = jax.lax.bitcast_convert_type((k.astype(jnp.int32) + 127) << 23, jnp.float32)
    return scale * (tail * r * r + r) + (scale - 1)


def passed(state: jax.Array, cut: jax.Array | None) -> jax.Array:
    """Return a state, or zero where it is cut."""
    return state if cut is None else jnp.where(cut[:, None, None], 0, state)


class Way(NamedTuple):
    """What lies between an end of a lane and the borders of its K blocks of steps.

    Attributes:
      dt: (K, R, E), time.
      cut: (K, R), whether a state becomes zero on the way; None without resets.
    """

    dt: jax.Array
    cut: jax.Array | None

    def left_of(self, state: jax.Array, rates: jax.Array) -> jax.Array:
        """Return what is left of a state or cotangent at one of the borders: K is taken off."""
        return jnp.exp(self.dt[:, None] * rates) * passed(state, self.cut)


def ways(blocks: Steps, *, reverse: bool = False) -> Way:
    """Return the ways from the start of each lane to the start of each block, and to its end.

    Args:
      blocks: with an axis K, blocks, in front.
      reverse: from the end of each lane to the end of each block, behind the way to its start.

    Returns:
      Ways (K + 1, ...).
    """
    order = slice(None, None, -1) if reverse else slice(None)

    def summed(array):
        sums = jnp.cumsum(jnp.sum(array, axis=1, dtype=array.dtype)[order], axis=0)
        return jnp.concatenate([jnp.zeros_like(sums[:1]), sums])[order]

    cut = None if blocks.cut is None else summed(blocks.cut.astype(jnp.int32)) > 0
    return Way(summed(blocks.dt), cut)


def met(
    lanes: int,
    steps: Steps,
    rates: jax.Array,
    first: jax.Array,
    gains_of: Callable[[jax.Array], jax.Array],
    *,
    reverse: bool = False,
) -> jax.Array:
    """Return the state that each lane meets at its first step.

    Args:
      lanes: how many.
      steps: of all lanes.
      rates: (1 or R, N, E).
      first: (B, G, N, E), the state before the first lane.
      gains_of: from a zero state of each lane to what is behind the lane.
      reverse: cotangents instead, which come from the last lane.

    Returns:
      (R, N, E).
    """
    own = (-1, *first.shape[2:])
    if lanes == 1:
        return first.reshape(own)
    zero = jnp.broadcast_to(jnp.zeros_like(first)[None], (lanes, *first.shape))
    by_lane = lambda array: array.reshape(lanes, *own)
    gains = by_lane(gains_of(zero.reshape(own)))
    decays = by_lane(jnp.expm1(_log_decay(steps, rates)))
    cut = _ever_cut(steps)
    cut = None if cut is None else cut.reshape(lanes, -1)

    def step(state, lane):
        gain, decay, cut = lane
        return passed(state + decay * state, cut) + gain, state

    lanes_met = jax.lax.scan(step, first.reshape(own), (gains, decays, cut), reverse=reverse)[1]
    return lanes_met.reshape(own)


def _log_decay(steps, rates):
    return jnp.sum(steps.dt, axis=0)[:, None] * rates


def _ever_cut(steps):
    return None if steps.cut is None else jnp.any(steps.cut, axis=0)
