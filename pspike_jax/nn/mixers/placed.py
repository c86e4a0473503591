"""Diagonal systems where a layer runs them: placed on a mesh, forth or back, of spikes or not."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.linear_ssm import linear_ssm
from pspike_jax.functional.packed_spikes import with_packed_spikes
from pspike_jax.functional.sequence_parallel import sequence_parallel_ssm
from pspike_jax.nn.placement import over_time


class System(NamedTuple):
    """A discretised diagonal system of H features.

    Attributes:
      Lambda_bar: (H, N) complex.
      B_bar: (H, N) complex.
      C: (H, N) complex, or (H, 2, N) with a second readout that looks ahead.
      D: (H,) real, or None.
    """

    Lambda_bar: jax.Array
    B_bar: jax.Array
    C: jax.Array
    D: jax.Array | None = None


def placed_ssm(
    u: jax.Array,
    system: System,
    state: jax.Array | None = None,
    *,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.AUTO,
    reverse: bool = False,
    spiking: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Run `linear_ssm`, over parts of the sequence where the mesh splits time.

    Args:
      u: (B, L, H) real.
      system: what is run.
      state: (B, H, N) complex64, zero if None.
      resets: (B, L) bool, see `linear_ssm`.
      engine: how the recurrence is evaluated; chunked where the mesh splits time.
      reverse: run from the last step to the first.
      spiking: inputs are spikes, kept as bits for the backward pass.

    Returns:
      y: (B, L, H) float32; state: (B, H, N) complex64, after the last step.
    """

    def run(u, given, state, *, axis_name):
        (Lambda_bar, B_bar, C, D), resets = given
        arrays = Lambda_bar, B_bar, jnp.moveaxis(C, 1, 0) if C.ndim == 3 else C, D
        if axis_name is not None:
            return sequence_parallel_ssm(
                u, *arrays, axis_name=axis_name, initial_state=state, reverse=reverse
            )
        u = turned(u, reverse)
        y, state = linear_ssm(u, *arrays, initial_state=state, resets=resets, engine=engine)
        return turned(y, reverse), state

    function = lambda u, given: over_time(run, u, *given)
    return of_spikes(function, spiking)(u, ((system, resets), state))


def of_spikes(function, spiking):
    """Return a function of inputs and the rest, which keeps inputs that are spikes as bits."""
    return functools.partial(with_packed_spikes, function) if spiking else function


def turned(x, reverse):
    """Return x (B, L, H), its steps in opposite order if `reverse`."""
    return x[:, ::-1] if reverse else x
