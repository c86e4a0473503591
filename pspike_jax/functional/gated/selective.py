"""Selective state spaces, decays exp(dt_t A), over a segment: one step after another, in lanes.

    h_t = exp(dt_t A) h_{t-1} + b_t x_t        lambda_t = c_t y_bar_t + exp(dt_{t+1} A) lambda_{t+1}
    y_t = <c_t, h_t>                           d log a_t = lambda_t exp(dt_t A) h_{t-1}

A segment is cut into lanes that run side by side, see `gated.lanes`, and each lane into blocks: the
decays of a block and its sums are computed together, the recurrence alone goes step by step. On the
way back the states at the starts of blocks come first, those within a block when its turn comes.

Two things keep long memories exact in float32. A decay acts as h + expm1(dt A) h: near 1, exp(dt A)
would be wrong by the same bit at each step. And at the start of each block stands what the lane has
made of a zero state, and what is left of the state that entered it, by exp of a sum: roundings do
not pile up.
"""

import functools

import jax
import jax.numpy as jnp

from pspike_jax.functional.gated.lanes import (
    LANE_STEPS,
    Selective,
    from_rows,
    losses_of,
    met,
    passed,
    rates_of_rows,
    to_lanes,
    to_rows,
    ways,
)
from pspike_jax.functional.gated.segments import Form

BLOCK_STEPS = 8  # an array of their states has room in a cache


def _run(inputs, rates, start, resets):
    """Run a segment; rates are (G, N, E), start is (B, G, N, E)."""
    return _per_platform(_run_lanes, inputs, rates, start, resets)


def _pull_back(inputs, rates, start, resets, y_bar, adjoint):
    return _per_platform(_pull_back_lanes, inputs, rates, start, resets, y_bar, adjoint)


def _swap(state):
    return jnp.swapaxes(state, -1, -2)


SELECTIVE = Form(_run, _pull_back, _swap, _swap)


def _per_platform(function, inputs, *arguments):
    lanes = inputs.x.shape[1] // LANE_STEPS
    if lanes <= 1:
        return function(1, inputs, *arguments)
    one, many = functools.partial(function, 1), functools.partial(function, lanes)
    return jax.lax.platform_dependent(inputs, *arguments, cpu=one, default=many)


def _run_lanes(lanes, inputs, rates, start, resets):
    steps = to_lanes(lanes, inputs, resets, start.dtype)
    rates = rates_of_rows(rates, steps.x.shape[1])
    first = _entering(lanes, steps, rates, start)

    def block(carry, inputs):
        gain, kept = carry
        own, way = inputs
        states = gain, gain + way.left_of(first, rates)
        (gain, _), kept = _advance(states, own, losses_of(own, rates), kept)
        return (gain, kept), _sum_over_states(kept, own.c)

    blocks, none = _blocks(steps), jnp.zeros_like(first)
    before, whole = _but_one(ways(blocks), -1)
    (gain, _), y = jax.lax.scan(block, (none, _room(blocks, none)), (blocks, before))
    last = gain + whole.left_of(first, rates)
    y = from_rows(lanes, y.reshape(-1, *y.shape[2:]), inputs.x.shape)
    return y, last.reshape(lanes, *start.shape)[-1]


def _pull_back_lanes(lanes, inputs, rates, start, resets, y_bar, adjoint):
    steps, groups = to_lanes(lanes, inputs, resets, start.dtype), rates.shape
    y_bar = to_rows(lanes, y_bar.astype(start.dtype))
    rates = rates_of_rows(rates, steps.x.shape[1])
    first = _entering(lanes, steps, rates, start)
    behind = _leaving(lanes, steps, rates, y_bar, adjoint)

    def starts_of_blocks(gain, inputs):
        own, way = inputs
        (after,), _ = _advance((gain,), own, losses_of(own, rates))
        return after, gain + way.left_of(first, rates)

    def block(carry, inputs):
        gain, rates_bar, states, *kept = carry
        own, way, y_bar, dt_after, start = inputs
        losses = losses_of(own, rates)
        _, states = _advance((start,), own, losses, states)
        adjoints = gain, gain + way.left_of(behind, rates)
        (gain, _), (seen, later) = _retreat(adjoints, own, y_bar, losses, tuple(kept))
        log_bar = later * states  # of the decay behind each step
        rates_bar += _sum_over_rows(log_bar * dt_after[:, :, None], rates)
        return (gain, rates_bar, states, seen, later), (
            _sum_over_states(seen, own.b), jnp.sum(log_bar * rates[None], axis=2),
            _sum_over_channels(seen, own.x), _sum_over_channels(states, y_bar),
        )

    blocks, none = _blocks(steps), jnp.zeros_like(first)
    before, _ = _but_one(ways(blocks), -1)
    after, whole = _but_one(ways(blocks, reverse=True), 0)
    starts = jax.lax.scan(starts_of_blocks, none, (blocks, before))[1]
    dt_after = jnp.concatenate([steps.dt[1:], jnp.zeros_like(steps.dt[:1])])
    room = _room(blocks, none)
    blocks = blocks, after, *_blocks((y_bar, dt_after)), starts
    carry = none, jnp.zeros_like(rates) + none[: len(rates)], room, room, room
    (gain, rates_bar, *_), bars = jax.lax.scan(block, carry, blocks, reverse=True)
    x_bar, dt_after_bar, b_bar, c_bar = (bar.reshape(-1, *bar.shape[2:]) for bar in bars)
    adjoint = gain + whole.left_of(behind, rates)
    log_bar = (adjoint * first)[None]  # of the decay of the first step
    rates_bar += _sum_over_rows(log_bar * steps.dt[:1, :, None], rates)
    dt_bar = jnp.concatenate([jnp.sum(log_bar * rates[None], axis=2), dt_after_bar[:-1]])
    bars = Selective(x_bar, dt_bar, b_bar, c_bar)
    bars = jax.tree.map(
        lambda bar, own: from_rows(lanes, bar, own.shape).astype(own.dtype), bars, inputs
    )
    rates_bar = jnp.sum(rates_bar.reshape(-1, *groups), axis=0)
    return bars, rates_bar, adjoint.reshape(lanes, *start.shape)[0]


def _entering(lanes, steps, rates, start):
    """Return the state before each lane, (R, N, E)."""

    def block(gains, own):
        return _advance(gains, own, losses_of(own, rates))[0], None

    gains_of = lambda zero: jax.lax.scan(block, (zero,), _blocks(steps))[0][0]
    return met(lanes, steps, rates, start, gains_of)


def _leaving(lanes, steps, rates, y_bar, adjoint):
    """Return the cotangent of the state behind each lane, (R, N, E)."""

    def block(gains, inputs):
        own, y_bar = inputs
        return _retreat(gains, own, y_bar, losses_of(own, rates))[0], None

    blocks = _blocks((steps, y_bar))
    gains_of = lambda zero: jax.lax.scan(block, (zero,), blocks, reverse=True)[0][0]
    return met(lanes, steps, rates, adjoint, gains_of, reverse=True)


def _blocks(tree):
    """Cut arrays (T, ...) into blocks of steps, (T / BLOCK_STEPS, BLOCK_STEPS, ...)."""
    size = min(BLOCK_STEPS, jax.tree.leaves(tree)[0].shape[0])
    return jax.tree.map(lambda array: array.reshape(-1, size, *array.shape[1:]), tree)


def _room(blocks, state):
    """Return room for a state at each step of a block."""
    return jnp.broadcast_to(state[None], (blocks.x.shape[1], *state.shape))


def _but_one(tree, place):
    """Return arrays without their first or last entry, and that entry."""
    rest = slice(1, None) if place == 0 else slice(None, -1)
    return jax.tree.map(lambda a: a[rest], tree), jax.tree.map(lambda a: a[place], tree)


def _advance(states, own, losses, kept=None):
    """Run a block.

    Args:
      states: (R, N, E) each, that pass through it.
      own: its steps.
      losses: of its decays.
      kept: (T, R, N, E), where the last state behind each step is written, or None.

    Returns:
      The states behind the block, and what was written.
    """

    def step(carry, inputs):
        states, kept = carry
        place, loss, b, x, cut = inputs
        states = [passed(state, cut) for state in states]
        states = tuple(state + loss * state + b[..., None] * x[:, None] for state in states)
        return (states, _write(kept, states[-1], place)), None

    inputs = jnp.arange(len(losses)), losses, own.b, own.x, own.cut
    return jax.lax.scan(step, (states, kept), inputs)[0]


def _retreat(adjoints, own, y_bar, losses, kept=(None, None)):
    """Go through a block from its end.

    Args:
      adjoints: (R, N, E) each, cotangents of states behind it.
      own, losses: as of `_advance`.
      y_bar: (T, R, E).
      kept: two of (T, R, N, E), where cotangents of the state behind each step are written: all of
        the last one, and what of it comes from later steps; or none.

    Returns:
      Cotangents of the states before the block, and what was written.
    """

    def step(carry, inputs):
        adjoints, (seen, later) = carry
        place, loss, c, y_bar, cut = inputs
        all_ = [adjoint + c[..., None] * y_bar[:, None] for adjoint in adjoints]
        kept = _write(seen, all_[-1], place), _write(later, adjoints[-1], place)
        return (tuple(passed(adjoint + loss * adjoint, cut) for adjoint in all_), kept), None

    inputs = jnp.arange(len(losses)), losses, own.c, y_bar, own.cut
    return jax.lax.scan(step, (adjoints, kept), inputs, reverse=True)[0]


def _write(kept, values, place):
    # Into an array that goes through all blocks: a new one would first be filled with zeros.
    if kept is None:
        return None
    return jax.lax.dynamic_update_index_in_dim(kept, values, place, axis=0)


def _sum_over_states(array, weights):
    """Return (T, R, E) of an array (T, R, N, E) and weights (T, R, N)."""
    return jnp.sum(array * weights[..., None], axis=2)


def _sum_over_channels(array, weights):
    """Return (T, R, N) of an array (T, R, N, E) and weights (T, R, E); a product is faster."""
    return jnp.einsum("trne,tre->trn", array, weights, precision=jax.lax.Precision.HIGHEST)


def _sum_over_rows(array, rates):
    """Return what an array (T, R, N, E) adds to the cotangent of the rates."""
    return jnp.sum(array, axis=(0, 1) if len(rates) == 1 else 0).reshape(rates.shape)
