"""What neurons do between their spikes, for pictures: their drives over time, run once more."""

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import Coefficients, Neuron, NeuronState
from pspike_jax.functional.neurons.separate import with_previous
from pspike_jax.functional.neurons.unroll import single


def drive_traces(
    neuron: Neuron,
    coefficients: Coefficients,
    currents: jax.Array,
    state: NeuronState,
    spikes: jax.Array,
    *,
    affine: tuple[jax.Array, jax.Array] | None = None,
    recurrent: jax.Array | None = None,
) -> jax.Array:
    """Return drives, membrane less threshold, of neurons whose spikes are given.

    No threshold is compared again: rounding cannot move a spike away from what is recorded.

    Args:
      neuron: the kind of neuron.
      coefficients: arrays (H, ...) from `neuron.coefficients`.
      currents: (B, L, H).
      state: before the first step, as `initial_state` gives it.
      spikes: (B, L, H), as `evaluate` found them.
      affine: gain and shift (H,) of currents that are to be gain current + shift, or None.
      recurrent: (H, H) matrix V with zero diagonal, or None.

    Returns:
      (B, L, H) float32; a neuron fires where it is above 0, or at 0 where the kind says so.
    """
    currents, spikes = single(currents), single(spikes)
    if affine is not None:
        gain, shift = (single(array)[None, None] for array in affine)
        currents = gain * currents + shift
    before = with_previous(spikes, state.spikes)
    if recurrent is not None:
        currents = currents + before @ recurrent
    rows = tuple(single(c)[None] for c in coefficients)

    def one_step(membrane, inputs):
        previous, current = inputs
        membrane = neuron.update(rows, membrane, previous, previous, current)
        return membrane, neuron.drive(rows, membrane)

    steps = (jnp.swapaxes(before, 0, 1), jnp.swapaxes(currents, 0, 1))
    return jnp.swapaxes(jax.lax.scan(one_step, state.membrane, steps)[1], 0, 1)
