"""Spikes of a hard reset by first passages: work that does not depend on the currents.

After a spike at step i the membrane at t is v_t - tau^{t-i} v_i, where v is the membrane that
would never reset. So the next spike, n(i), is the first t > i with

  (v_t - V) tau^{-(t-i)} >= tau^0 v_i,

the next element that is greater, in a scale that shrinks by tau a step. Maxima over blocks of 2^k
steps, each in the scale of its first step, answer that for all i by bisection in log2 L passes;
then log2 L doublings of n follow the spikes from the first one on.
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import Neuron
from pspike_jax.functional.neurons.separate import Rows, fires, in_time
from pspike_jax.functional.recurrence import linear_recurrence


def hard_spikes(neuron: Neuron, rows: Rows) -> jax.Array:
    """Find the spikes of neurons that a spike sets to zero, up to rounding of long sums.

    Args:
      neuron: a kind with a hard reset.
      rows: what they are given.

    Returns:
      (B, L, H) bool.
    """
    coefficients = in_time(rows.coefficients)
    silence = jnp.zeros_like(rows.currents)
    ((tau, current),) = neuron.between_spikes(coefficients, silence[:, :1], rows.currents)
    ((first, _),) = neuron.between_spikes(
        coefficients, rows.state.spikes[:, None], rows.currents[:, :1]
    )
    # The step before the first may have had a spike, or what was drawn in its place.
    start = first[:, 0] * rows.state.membrane[0]
    current = current.at[:, 0].add(start)
    tau = tau[:1, :1]
    v = linear_recurrence(tau, current)
    excess = neuron.drive(coefficients, (v,))
    following = _next_spike(neuron, tau, v, excess)
    # Step -1 is at rest: its spike comes where v itself first passes the threshold.
    return _follow(following, v.shape[1])


def _next_spike(neuron, tau, v, excess):
    """Return (B, L + 1, H) int32: the first spike at or after step 0, then n(i) for each i."""
    length = v.shape[1]
    levels = max(1, length.bit_length())
    floor = jnp.full_like(v[:, :1], -jnp.inf)
    tables = [jnp.concatenate([excess, floor], axis=1)]
    powers = [1 / tau]
    for k in range(levels - 1):
        table, shift = tables[-1], min(2**k, length)
        beyond = jnp.full_like(table[:, :shift], -jnp.inf)
        later = jnp.concatenate([table[:, shift:], beyond], axis=1)
        # Infinity times zero is a membrane at its threshold, in any scale.
        scaled = jnp.where(later == 0, 0.0, powers[-1] * later)
        tables.append(jnp.maximum(table, scaled))
        powers.append(powers[-1] * powers[-1])
    at = jnp.broadcast_to(jnp.arange(length + 1, dtype=jnp.int32)[None, :, None], tables[0].shape)
    target = jnp.concatenate([jnp.zeros_like(floor), tau * v], axis=1)
    for k in reversed(range(levels)):
        best = jnp.take_along_axis(tables[k], at, axis=1)
        inside = fires(neuron, best - target)
        target = jnp.where(inside, target, target / powers[k])
        at = jnp.where(inside, at, jnp.minimum(at + 2**k, length))
    return at


def _follow(following, length):
    """Return the steps that are reached from the first spike on."""
    nothing = jnp.full_like(following[:, :1], length)
    batch, _, features = following.shape
    b = jnp.arange(batch, dtype=jnp.int32)[:, None, None]
    h = jnp.arange(features, dtype=jnp.int32)[None, None, :]
    first, jump = following[:, :1], jnp.concatenate([following[:, 1:], nothing], axis=1)
    reached = jnp.zeros(jump.shape, bool).at[b, first, h].set(True)
    for _ in range(max(1, length.bit_length())):
        steps = jnp.where(reached, jump, length)
        reached = reached.at[b, steps, h].set(True)
        jump = jnp.take_along_axis(jump, jump, axis=1)
    return reached[:, :length]
