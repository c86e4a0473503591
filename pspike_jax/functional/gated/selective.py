"""Selective state spaces, decays exp(dt_t A), over a segment: one step after another, in lanes.

    h_t = exp(dt_t A) h_{t-1} + b_t x_t        lambda_t = c_t y_bar_t + exp(dt_{t+1} A) lambda_{t+1}
    y_t = <c_t, h_t>                           d log a_t = lambda_t exp(dt_t A) h_{t-1}

A segment is cut into lanes that run side by side. Each is run from a zero state first, which tells
what it adds to a state that passes through, and then from the state that does reach it. Where the
work of a step fills the machine, on CPUs, there is one lane, and no first run.

States are (N, R, E): rows of a lane, an example and a group, and channels last, so that sums over N
add whole rows. Two things keep long memories exact in float32. A decay acts as h + expm1(dt A) h:
near 1, exp(dt A) would be wrong by the same bit at each step. And from step to step goes only what
a lane adds; the state that entered it decays by exp of a sum, so that roundings do not pile up.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.gated.segments import Form

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
    """The same in lanes; masks tell where a state becomes zero, and are None without resets.

    Attributes:
      x, dt: (T, R, E).
      b, c: (T, N, R).
      since: (T, R, E), dt summed from the lane's first step through this one.
      after: (T, R, E), dt summed over the lane's later steps.
      cut: (T, R), before this step.
      cut_since: (T, R), before this step or an earlier one of the lane.
      cut_after: (T, R), before a later step of the lane.
    """

    x: jax.Array
    dt: jax.Array
    b: jax.Array
    c: jax.Array
    since: jax.Array
    after: jax.Array
    cut: jax.Array | None = None
    cut_since: jax.Array | None = None
    cut_after: jax.Array | None = None


def _run(inputs, rates, start, resets):
    """Run a segment; rates are (N, G, E), start is (N, B, G, E)."""
    return _per_platform(_run_lanes, inputs, rates, start, resets)


def _pull_back(inputs, rates, start, resets, y_bar, adjoint):
    return _per_platform(_pull_back_lanes, inputs, rates, start, resets, y_bar, adjoint)


def _pack(state):
    return jnp.moveaxis(state, -1, 0)


def _unpack(state):
    return jnp.moveaxis(state, 0, -1)


SELECTIVE = Form(_run, _pull_back, _pack, _unpack)


def _per_platform(function, inputs, *arguments):
    lanes = inputs.x.shape[1] // LANE_STEPS
    if lanes <= 1:
        return function(1, inputs, *arguments)
    one, many = functools.partial(function, 1), functools.partial(function, lanes)
    return jax.lax.platform_dependent(inputs, *arguments, cpu=one, default=many)


def _run_lanes(lanes, inputs, rates, start, resets):
    steps = _to_lanes(lanes, inputs, resets, start.dtype)
    wide = _by_row(rates, steps)
    first = _entering(lanes, steps, wide, start)

    def step(gain, own):
        gain = _advance(gain, own, wide)
        state = gain + _arrived(first, own.since, own.cut_since, wide)
        return gain, jnp.sum(state * own.c[..., None], axis=0)

    gain, y = jax.lax.scan(step, jnp.zeros_like(first), steps)
    last = gain + _arrived(first, steps.since[-1], _at(steps.cut_since, -1), wide)
    return _from_rows(lanes, y, inputs.x.shape), _lane(lanes, last, start.shape, -1)


def _pull_back_lanes(lanes, inputs, rates, start, resets, y_bar, adjoint):
    steps = _to_lanes(lanes, inputs, resets, start.dtype)
    y_bar = _to_rows(lanes, y_bar.astype(start.dtype))
    wide, alike = _by_row(rates, steps), rates.shape[1] == 1
    first = _entering(lanes, steps, wide, start)
    behind = _leaving(lanes, steps, wide, y_bar, adjoint)

    def again(carry, inputs):
        (gain, state), (own, y_bar) = carry, inputs
        before = _passed(state, own.cut)
        gain = _advance(gain, own, wide)
        state = gain + _arrived(first, own.since, own.cut_since, wide)
        return (gain, state), (before, jnp.sum(state * y_bar[None], axis=-1))

    def back(carry, inputs):
        gain, rates_bar = carry
        own, y_bar, before = inputs
        gain, seen = _retreat(gain, own, y_bar, wide)
        adjoint = seen + _arrived(behind, own.after, own.cut_after, wide)
        log_bar = _decayed(adjoint, own, wide) * before
        gained = log_bar * own.dt[None]
        rates_bar += jnp.sum(gained, axis=1, keepdims=True) if alike else gained
        x_bar = jnp.sum(adjoint * own.b[..., None], axis=0)
        dt_bar = jnp.sum(log_bar * wide, axis=0)
        b_bar = jnp.sum(adjoint * own.x[None], axis=-1)
        return (gain, rates_bar), (x_bar, dt_bar, b_bar)

    none = jnp.zeros_like(first)
    _, (before, c_bar) = jax.lax.scan(again, (none, first), (steps, y_bar))
    carry = (none, none[:, :1] if alike else none)
    (gain, rates_bar), bars = jax.lax.scan(back, carry, (steps, y_bar, before), reverse=True)
    adjoint = gain + _arrived(behind, steps.since[-1], _at(steps.cut_since, -1), wide)
    bars = Selective(
        *(_from_rows(lanes, bar, inputs.x.shape) for bar in bars[:2]),
        *(_from_rows(lanes, bar.swapaxes(1, 2), inputs.b.shape) for bar in (bars[2], c_bar)),
    )
    bars = jax.tree.map(lambda bar, own: bar.astype(own.dtype), bars, inputs)
    if not alike:
        rates_bar = jnp.sum(rates_bar.reshape(rates.shape[0], -1, *rates.shape[1:]), axis=1)
    return bars, rates_bar.reshape(rates.shape), _lane(lanes, adjoint, start.shape, 0)


def _advance(gain, own, rates):
    """Return a state one step later."""
    return _decayed(_passed(gain, own.cut), own, rates) + own.b[..., None] * own.x[None]


def _retreat(gain, own, y_bar, rates):
    """Return the cotangents of the states before and behind a step, from that of a later one."""
    seen = gain + own.c[..., None] * y_bar[None]
    return _passed(_decayed(seen, own, rates), own.cut), seen


def _decayed(state, own, rates):
    return state + jnp.expm1(own.dt[None] * rates) * state


def _arrived(state, dt, cut, rates):
    """Return what is left of a state after time dt."""
    return jnp.exp(dt[None] * rates) * _passed(state, cut)


def _passed(state, cut):
    return state if cut is None else jnp.where(cut[None, :, None], 0, state)


def _at(array, step):
    return None if array is None else array[step]


def _entering(lanes, steps, rates, start):
    """Return the state before each lane, (N, R, E)."""
    if lanes == 1:
        return start.reshape(start.shape[0], -1, start.shape[-1])

    def step(gain, own):
        return _advance(gain, own, rates), None

    gains = jax.lax.scan(step, _none(lanes, start), steps)[0]
    return _between(lanes, steps, rates, gains, start, reverse=False)


def _leaving(lanes, steps, rates, y_bar, adjoint):
    """Return the cotangent of the state behind each lane, (N, R, E)."""
    if lanes == 1:
        return adjoint.reshape(adjoint.shape[0], -1, adjoint.shape[-1])

    def back(gain, inputs):
        return _retreat(gain, *inputs, rates)[0], None

    gains = jax.lax.scan(back, _none(lanes, adjoint), (steps, y_bar), reverse=True)[0]
    return _between(lanes, steps, rates, gains, adjoint, reverse=True)


def _between(lanes, steps, rates, gains, first, reverse):
    """Pass a state from lane to lane; return the one that each lane meets."""
    shape = (gains.shape[0], lanes, -1, gains.shape[-1])
    by_lane = lambda array: jnp.moveaxis(array.reshape(shape), 1, 0)
    decays = by_lane(jnp.expm1(steps.since[-1][None] * rates))
    cut = None if steps.cut is None else steps.cut_since[-1].reshape(lanes, -1)

    def step(state, lane):
        gain, decay, cut = lane
        return _passed(state + decay * state, cut) + gain, state

    first = first.reshape(first.shape[0], -1, first.shape[-1])
    met = jax.lax.scan(step, first, (by_lane(gains), decays, cut), reverse=reverse)[1]
    return jnp.moveaxis(met, 0, 1).reshape(gains.shape)


def _none(lanes, state):
    """Return a zero state of each lane."""
    zero = jnp.zeros_like(state)[:, None]
    repeated = jnp.broadcast_to(zero, (state.shape[0], lanes, *state.shape[1:]))
    return repeated.reshape(state.shape[0], -1, state.shape[-1])


def _lane(lanes, states, shape, lane):
    """Return the state of one lane, in the shape of a start."""
    return states.reshape(shape[0], lanes, *shape[1:])[:, lane]


def _by_row(rates, steps):
    """Return rates (N, 1, E), or (N, R, E) where groups differ in them."""
    if rates.shape[1] == 1:
        return rates
    states, groups, channels = rates.shape
    rows = steps.x.shape[1]
    repeated = jnp.broadcast_to(rates[:, None], (states, rows // groups, groups, channels))
    return repeated.reshape(states, rows, channels)


def _to_lanes(lanes, inputs, resets, dtype):
    x, dt, b, c = (_to_rows(lanes, array.astype(dtype)) for array in inputs)
    since = jnp.cumsum(dt, axis=0)
    after = jnp.concatenate([jnp.cumsum(dt[:0:-1], axis=0)[::-1], jnp.zeros_like(dt[:1])])
    steps = Steps(x, dt, b.swapaxes(1, 2), c.swapaxes(1, 2), since, after)
    if resets is None:
        return steps
    cut = jnp.broadcast_to(resets[:, :, None, None], (*inputs.x.shape[:3], 1))
    cut = _to_rows(lanes, cut)[..., 0]
    count = jnp.cumsum(cut, axis=0, dtype=jnp.int32)
    return steps._replace(cut=cut, cut_since=count > 0, cut_after=count < count[-1:])


def _to_rows(lanes, array):
    """Return (T, R, F) of an array (B, lanes T, G, F)."""
    batch, length, groups, features = array.shape
    array = array.reshape(batch, lanes, length // lanes, groups, features)
    return array.transpose(2, 1, 0, 3, 4).reshape(length // lanes, -1, features)


def _from_rows(lanes, array, shape):
    """Return (B, lanes T, G, F), of this shape, of an array (T, R, F)."""
    batch, length, groups = shape[:3]
    array = array.reshape(length // lanes, lanes, batch, groups, array.shape[-1])
    return array.transpose(2, 1, 0, 3, 4).reshape(batch, length, groups, -1)
