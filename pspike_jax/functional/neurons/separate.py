"""Membranes of neurons whose spikes are given: linear recurrences, parallel in time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import Coefficients, Membrane, Neuron, NeuronState
from pspike_jax.functional.recurrence import linear_recurrence


class Rows(NamedTuple):
    """What B x H neurons are given.

    Attributes:
      coefficients: arrays (H,).
      currents: (B, L, H) float32.
      state: before the first step, (B, H) each.
    """

    coefficients: Coefficients
    currents: jax.Array
    state: NeuronState


def with_previous(array: jax.Array, start: jax.Array) -> jax.Array:
    """Shift (B, L, H) one step later, behind what was before the first step, (B, H)."""
    return jnp.concatenate([start[:, None].astype(array.dtype), array[:, :-1]], axis=1)


def in_time(coefficients: Coefficients) -> Coefficients:
    """Let coefficients (H,) broadcast against (B, L, H)."""
    return tuple(c[None, None] for c in coefficients)


def membranes(neuron: Neuron, rows: Rows, spikes: jax.Array) -> Membrane:
    """Return the membrane variables, (B, L, H) each, that spikes (B, L, H) lead to."""
    before = with_previous(spikes.astype(jnp.float32), rows.state.spikes)
    pairs = neuron.between_spikes(in_time(rows.coefficients), before, rows.currents)
    return tuple(
        linear_recurrence(decay, drawn, initial_state=start)
        for (decay, drawn), start in zip(pairs, rows.state.membrane, strict=True)
    )


def drives(neuron: Neuron, rows: Rows, spikes: jax.Array) -> jax.Array:
    """Return the drives (B, L, H) that spikes (B, L, H) lead to."""
    return neuron.drive(in_time(rows.coefficients), membranes(neuron, rows, spikes))


def fires(neuron: Neuron, drive: jax.Array) -> jax.Array:
    """Return whether drives fire, as bool."""
    return drive >= 0 if neuron.fires_at_zero else drive > 0
