"""Selective state spaces, decays exp(dt_t A), over a segment: one step after another, in lanes.

    h_t = exp(dt_t A) h_{t-1} + b_t x_t        lambda_t = c_t y_bar_t + exp(dt_{t+1} A) lambda_{t+1}
    y_t = <c_t, h_t>                           d log a_t = lambda_t exp(dt_t A) h_{t-1}

A segment is cut into lanes that run side by side. Each is run from a zero state first, which tells
what it adds to a state that passes through, and then from the state that does reach it. Where the
work of a step fills the machine, on CPUs, there is one lane, and no first run.

States are (N, R, E): rows of a lane, an example and a group, and channels last, so that sums over N
add whole rows. Two things keep long memories exact in float32. A decay acts as h + expm1(dt A) h:
near 1, exp(dt A) would be wrong by the same bit at each step. And what is carried is how far a state
has come from the one that entered its lane, so that small steps are not rounded to a large state.
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
      x: (B, L, G, E) or, in lanes, (T, R, E).
      dt: as x, the factor of the rates.
      b: (B, L, G, N) or, in lanes, (T, N, R).
      c: as b.
    """

    x: jax.Array
    dt: jax.Array
    b: jax.Array
    c: jax.Array


class Cuts(NamedTuple):
    """Where a state becomes zero, (T, R) bool each, or None where there are no resets.

    Attributes:
      at: before this step.
      up_to: before this step or an earlier one of the lane.
      after: before a later step of the lane.
    """

    at: jax.Array | None
    up_to: jax.Array | None
    after: jax.Array | None


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
    steps, cuts = _to_lanes(lanes, inputs, resets, start.dtype)
    wide = _by_row(rates, steps)
    first = _entering(lanes, steps, cuts, wide, start)

    def step(change, inputs):
        change, _, state = _advance(first, change, *inputs, wide)
        return change, jnp.sum(state * inputs[0].c[..., None], axis=0)

    change, y = jax.lax.scan(step, jnp.zeros_like(first), (steps, cuts))
    last = _passed(first, None if resets is None else cuts.up_to[-1]) + change
    return _from_rows(lanes, y, inputs.x.shape), _lane(lanes, last, start.shape, -1)


def _pull_back_lanes(lanes, inputs, rates, start, resets, y_bar, adjoint):
    steps, cuts = _to_lanes(lanes, inputs, resets, start.dtype)
    y_bar = _to_rows(lanes, y_bar.astype(start.dtype))
    wide, alike = _by_row(rates, steps), rates.shape[1] == 1
    first = _entering(lanes, steps, cuts, wide, start)
    behind = _leaving(lanes, steps, cuts, wide, y_bar, adjoint)

    def again(change, inputs):
        *inputs, y_bar = inputs
        change, before, state = _advance(first, change, *inputs, wide)
        return change, (before, jnp.sum(state * y_bar[None], axis=-1))

    def back(carry, inputs):
        change, rates_bar = carry
        own, cut, y_bar, before = inputs
        change, adjoint, decayed = _retreat(behind, change, own, cut, y_bar, wide)
        log_bar = decayed * before
        gained = log_bar * own.dt[None]
        rates_bar += jnp.sum(gained, axis=1, keepdims=True) if alike else gained
        x_bar = jnp.sum(adjoint * own.b[..., None], axis=0)
        dt_bar = jnp.sum(log_bar * wide, axis=0)
        b_bar = jnp.sum(adjoint * own.x[None], axis=-1)
        return (change, rates_bar), (x_bar, dt_bar, b_bar)

    none = jnp.zeros_like(first)
    _, (before, c_bar) = jax.lax.scan(again, none, (steps, cuts, y_bar))
    carry = (none, none[:, :1] if alike else none)
    (change, rates_bar), bars = jax.lax.scan(
        back, carry, (steps, cuts, y_bar, before), reverse=True
    )
    adjoint = _passed(behind, None if resets is None else cuts.up_to[-1]) + change
    bars = Selective(*bars, c_bar)
    bars = Selective(
        *(_from_rows(lanes, bar, inputs.x.shape) for bar in bars[:2]),
        *(_from_rows(lanes, jnp.moveaxis(bar, 1, 2), inputs.b.shape) for bar in bars[2:]),
    )
    bars = jax.tree.map(lambda bar, own: bar.astype(own.dtype), bars, inputs)
    if not alike:
        rates_bar = jnp.sum(rates_bar.reshape(rates.shape[0], -1, *rates.shape[1:]), axis=1)
    return bars, rates_bar.reshape(rates.shape), _lane(lanes, adjoint, start.shape, 0)


def _advance(first, change, own, cuts, rates):
    """Return the change behind a step since `first`, and the states before and behind the step."""
    first, change = _passed(first, cuts.up_to), _passed(change, cuts.at)
    before = first + change
    change = change + (jnp.expm1(own.dt[None] * rates) * before + own.b[..., None] * own.x[None])
    return change, before, first + change


def _retreat(last, change, own, cuts, y_bar, rates):
    """Return the change of the adjoint before a step, the adjoint behind it, and that decayed."""
    last = _passed(last, cuts.after)
    change = change + own.c[..., None] * y_bar[None]
    adjoint = last + change
    change = change + jnp.expm1(own.dt[None] * rates) * adjoint
    return _passed(change, cuts.at), adjoint, last + change


def _passed(state, cut):
    return state if cut is None else jnp.where(cut[None, :, None], 0, state)


def _entering(lanes, steps, cuts, rates, start):
    """Return the state before each lane, (N, R, E)."""
    if lanes == 1:
        return start.reshape(start.shape[0], -1, start.shape[-1])
    none = _none(lanes, start)

    def step(change, inputs):
        return _advance(none, change, *inputs, rates)[0], None

    gains = jax.lax.scan(step, none, (steps, cuts))[0]
    return _between(lanes, steps, cuts, rates, gains, start, reverse=False)


def _leaving(lanes, steps, cuts, rates, y_bar, adjoint):
    """Return the cotangent of the state behind each lane, (N, R, E)."""
    if lanes == 1:
        return adjoint.reshape(adjoint.shape[0], -1, adjoint.shape[-1])
    none = _none(lanes, adjoint)

    def back(change, inputs):
        return _retreat(none, change, *inputs, rates)[0], None

    gains = jax.lax.scan(back, none, (steps, cuts, y_bar), reverse=True)[0]
    return _between(lanes, steps, cuts, rates, gains, adjoint, reverse=True)


def _between(lanes, steps, cuts, rates, gains, first, reverse):
    """Pass a state from lane to lane; return the one that each lane meets."""
    shape = (gains.shape[0], lanes, -1, gains.shape[-1])
    by_lane = lambda array: jnp.moveaxis(array.reshape(shape), 1, 0)
    decays = by_lane(jnp.expm1(jnp.sum(steps.dt, axis=0)[None] * rates))
    cut = None if cuts.at is None else cuts.up_to[-1].reshape(lanes, -1)

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
    steps = Selective(x, dt, b.swapaxes(1, 2), c.swapaxes(1, 2))
    if resets is None:
        return steps, Cuts(None, None, None)
    at = jnp.broadcast_to(resets[:, :, None, None], (*inputs.x.shape[:3], 1))
    at = _to_rows(lanes, at)[..., 0]
    count = jnp.cumsum(at, axis=0, dtype=jnp.int32)
    return steps, Cuts(at, count > 0, count < count[-1:])


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
