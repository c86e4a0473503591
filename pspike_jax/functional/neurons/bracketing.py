"""LIF with subtractive reset, exactly and parallel in time, by bracketing its spikes.

A reset only ever lowers the membrane, so a spike can only prevent later spikes. Membranes that are
reset by too few spikes therefore bound the true ones from above, and by too many from below:

  lowest = 0, highest = 1, then repeatedly
  highest = 1[membrane(lowest) > threshold],    lowest = 1[membrane(highest) > threshold]

Both always enclose the true spikes, and at least one more step of every sequence is settled each
time. membrane(spikes) is a linear recurrence, which runs parallel in time. Published for spiking
state space models as parallel max-min boundary compression (arXiv 2410.17268), whose program is
not available; this is a reconstruction.

A membrane within rounding of the threshold settles nothing. Sequences that stay open go to the
scan over steps: many where the leak is slow and neurons fire often, since every reset is then felt
for long. On CPUs the scan alone is faster; see benchmarks/neurons.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.lif import LIF
from pspike_jax.functional.neurons.neuron import NeuronState
from pspike_jax.functional.neurons.unroll import unroll


class Bracketed(NamedTuple):
    """What `bracketed_lif` returns.

    Attributes:
      spikes: (L, B, H) float32 in {0, 1}, those of `unroll`; no gradient passes.
      state: after the last step; its membrane equals `unroll`'s but for rounding.
      open_share: () share of the B H sequences that bracketing left open.
    """

    spikes: jax.Array
    state: NeuronState
    open_share: jax.Array


def bracketed_lif(
    alpha: jax.Array,
    currents: jax.Array,
    state: NeuronState,
    *,
    threshold: float = 1.0,
    iterations: int = 4,
    room: float = 0.25,
) -> Bracketed:
    """Run a layer of LIF neurons over a sequence.

    Args:
      alpha: (H,) decay per step, in (0, 1).
      currents: (L, B, H) input currents, time first; computed in float32.
      state: the state before the first step, (B, H) each.
      threshold: the membrane above which a neuron fires.
      iterations: most times that the brackets are drawn together.
      room: share of the sequences that can be scanned alone; where more stay open, all are scanned.

    Returns:
      Spikes, final state, and how many sequences bracketing left open.

    Raises:
      ValueError: iterations or room out of range.
    """
    if iterations < 1 or not 0 < room <= 1:
        raise ValueError(f"iterations is {iterations} and room {room}; expected >= 1 and (0, 1]")
    length, batch, features = currents.shape
    rows = batch * features
    alpha = jax.lax.stop_gradient(jnp.tile(alpha, batch))
    currents, *start = (
        jax.lax.stop_gradient(x).astype(jnp.float32).reshape(*x.shape[:-2], rows)
        for x in (currents, *state.membrane, state.spikes)
    )
    margin = _rounding(alpha, currents, start)[None]
    membrane = lambda spikes: _membrane(alpha, currents, spikes, start)

    def draw_together(carry):
        count, lowest, highest, _ = carry
        above, below = membrane(lowest), membrane(highest)
        closer = below > threshold + margin, above > threshold - margin
        moves = jnp.any((closer[0] != lowest) | (closer[1] != highest))
        return count + 1, *closer, moves

    def goes_on(carry):
        count, lowest, highest, moves = carry
        return (count < iterations) & moves & jnp.any(lowest != highest)

    silent = jnp.zeros(currents.shape, bool)
    widest = (0, silent, ~silent, jnp.bool_(True))
    _, lowest, highest, _ = jax.lax.while_loop(goes_on, draw_together, widest)
    is_open = jnp.any(lowest != highest, axis=0) | jnp.isnan(margin[0])
    spikes = lowest.astype(jnp.float32)
    last = membrane(lowest)[-1]
    capacity = max(1, int(room * rows))

    def scan(chosen):
        """Scan the chosen sequences, and put what comes out in its place."""
        neuron = LIF(threshold=threshold)
        before = NeuronState((start[0][None, chosen],), start[1][None, chosen])
        fired, _, after = unroll(neuron, (alpha[chosen],), currents[:, None, chosen], before)
        found = spikes.at[:, chosen].set(fired[:, 0])
        return found, last.at[chosen].set(after.membrane[0][0])

    first_open = lambda: scan(jnp.argsort(~is_open, stable=True)[:capacity])
    everything = lambda: scan(jnp.arange(rows))
    scanned = lambda: jax.lax.cond(jnp.sum(is_open) <= capacity, first_open, everything)
    spikes, last = jax.lax.cond(jnp.any(is_open), scanned, lambda: (spikes, last))
    spikes = spikes.reshape(length, batch, features)
    state = NeuronState((last.reshape(batch, features),), spikes[-1])
    return Bracketed(spikes, state, jnp.mean(is_open))


def _membrane(alpha, currents, spikes, start):
    """Return the membranes (L, R) that given spikes (L, R) lead to; `start` is (u, s) before."""
    u, s = start
    before = jnp.concatenate([s[None], spikes[:-1].astype(jnp.float32)])
    x = (1 - alpha)[None] * currents - alpha[None] * before
    x = x.at[0].add(alpha * u)
    # Doubling: after the pass with `shift`, x sums the last 2 shift steps' inputs, decayed.
    shift, power = 1, alpha
    while shift < len(x):
        x = x.at[shift:].add(power[None] * x[:-shift])
        shift, power = 2 * shift, power * power
    return x


def _rounding(alpha, currents, start):
    """Bound, for each sequence, how far the two ways to a membrane can part by rounding.

    With |u| <= M = max |I| + |u_0 - s_0| + 1 / (1 - alpha), and in units of M eps / 2: the scan
    rounds three times a step, which the leak sums to 3 / (1 - alpha); doubling has inputs off by 4
    in sum, rounds a product and a sum in each pass, and has powers off by one per lag, which the
    leak sums to 1 / (1 - alpha). NaN where a current is.
    """
    passes = max(1, len(currents) - 1).bit_length()
    slowness = 1 / (1 - alpha)
    largest = jnp.max(jnp.abs(currents), axis=0) + jnp.abs(start[0] - start[1]) + slowness
    return 0.5 * jnp.finfo(jnp.float32).eps * (4 * slowness + 2 * passes + 4) * largest
