"""Spikes of a soft reset from bounds of the membrane that are carried through the resets.

Where it is not known whether a membrane in [l, h] fires, it lies in [min(l, V - J), max(V, h - J)]
behind the reset that subtracts J; where it fires, in [max(l, V) - J, h - J]; where it does not, in
[l, min(h, V)]. A step then maps a bound by x -> min(B, max(A, m x + a)). Such maps compose into
maps of the same kind, so bounds of all steps come from a parallel scan, and are intersected with
those that silence and fire by turns give (`parallel`).
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import Neuron
from pspike_jax.functional.neurons.separate import Rows, drives, fires, in_time, with_previous


def soft_spikes(neuron: Neuron, rows: Rows, rounds: int) -> tuple[jax.Array, jax.Array]:
    """Draw bounds together until they meet, or `rounds` times.

    Args:
      neuron: a kind with a soft reset.
      rows: what they are given.
      rounds: most rounds.

    Returns:
      (B, L, H) bool, spikes that are certain; and the number of rounds.
    """
    tau, current, loss, threshold = _parts(neuron, rows)

    def once(carry):
        count, lowest, highest, _ = carry
        above, below = drives(neuron, rows, lowest), drives(neuron, rows, highest)
        low, high = _carried(tau, current, loss, threshold, lowest, highest)
        least = lowest | fires(neuron, below) | fires(neuron, low - threshold)
        most = highest & fires(neuron, above) & fires(neuron, high - threshold)
        moves = jnp.any((least != lowest) | (most != highest))
        return count + 1, least, most, moves

    def goes_on(carry):
        count, lowest, highest, moves = carry
        return (count < rounds) & moves & jnp.any(lowest != highest)

    silent = jnp.zeros(current.shape, bool) & jnp.isnan(current)
    count = jnp.sum(silent, dtype=jnp.int32)
    first = (count, silent, ~silent, ~jnp.any(silent))
    count, lowest, _, _ = jax.lax.while_loop(goes_on, once, first)
    return lowest, count


def _parts(neuron, rows):
    """Return tau (1, 1, H), the currents, tau times what a spike subtracts, and the threshold."""
    coefficients = in_time(rows.coefficients)
    zeros = jnp.zeros_like(rows.currents[:, :1])
    ((tau, lost),) = neuron.between_spikes(coefficients, zeros + 1, zeros)
    before = with_previous(jnp.zeros_like(rows.currents), rows.state.spikes)
    ((_, current),) = neuron.between_spikes(coefficients, before, rows.currents)
    current = current.at[:, 0].add(tau[:, 0] * rows.state.membrane[0])
    return tau, current, -lost, -neuron.drive(coefficients, (zeros,))


def _carried(tau, current, loss, threshold, lowest, highest):
    """Return bounds (B, L, H) of the membranes, from spikes that are certain and possible."""
    none = jnp.zeros_like(lowest[:, 0])
    fired, may = with_previous(lowest, none), with_previous(highest, none)
    reset = current - jnp.where(fired, loss, 0.0)
    edge = tau * threshold + current
    infinite = jnp.full_like(current, jnp.inf)
    # Below: a spike leaves V - J or more; where there may be one, V - J bounds from above.
    low = (
        reset,
        jnp.where(fired, edge - loss, -infinite),
        jnp.where(may & ~fired, edge - loss, infinite),
    )
    # Above: no spike leaves V or less; where there may be none, V bounds from below.
    shifted = current - jnp.where(may, loss, 0.0)
    high = (
        shifted,
        jnp.where(may & ~fired, edge, -infinite),
        jnp.where(may, infinite, edge),
    )
    return tuple(_clamped_recurrence(tau, *maps) for maps in (low, high))


def _clamped_recurrence(slope, offset, least, most):
    """Return x_t = min(most_t, max(least_t, slope x_{t-1} + offset_t)), x_0 = offset_0."""
    start = jnp.ones_like(offset[:, :1], bool)
    first = jnp.concatenate([start, jnp.zeros_like(offset[:, 1:], bool)], axis=1)
    slope = jnp.where(first, 0.0, slope)
    least, most = jnp.where(first, -jnp.inf, least), jnp.where(first, jnp.inf, most)

    def compose(earlier, later):
        (m1, a1, low1, high1), (m2, a2, low2, high2) = earlier, later
        clip = lambda x: jnp.minimum(high2, jnp.maximum(low2, x))
        # A slope of 0 forgets bounds that may be infinite.
        through = lambda x: jnp.where(m2 == 0, a2, m2 * x + a2)
        return m2 * m1, through(a1), clip(through(low1)), clip(through(high1))

    _, offset, least, most = jax.lax.associative_scan(
        compose, (slope, offset, least, most), axis=1
    )
    return jnp.minimum(most, jnp.maximum(least, offset))
