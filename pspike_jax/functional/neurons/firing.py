"""The spike of a neuron that fires by a threshold, and what stands for its derivative."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.functional.surrogates import Surrogate, boxcar


class Firing(NamedTuple):
    """What the backward pass of a neuron's spikes does.

    Attributes:
      surrogate: function (drive, 0.0) -> d spike / d drive, see `functional.surrogates`.
      detach_reset: whether the reset is a constant of the backward pass. SiLIF's authors' is not.
    """

    surrogate: Surrogate = boxcar
    detach_reset: bool = False


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def fire(surrogate: Surrogate, fires_at_zero: bool, drive: jax.Array) -> jax.Array:
    """Return 1 where the drive is positive, else 0; differentiates in both modes.

    Args:
      surrogate: function (drive, 0.0) -> d spike / d drive.
      fires_at_zero: whether a drive of 0 is a spike.
      drive: float32, any shape.

    Returns:
      Spikes of the drive's shape and dtype; NaN where the drive is NaN.
    """
    fires = drive >= 0 if fires_at_zero else drive > 0
    return jnp.where(jnp.isnan(drive), drive, fires.astype(drive.dtype))


@fire.defjvp
def _fire_jvp(surrogate, fires_at_zero, primals, tangents):
    (drive,), (tangent,) = primals, tangents
    return fire(surrogate, fires_at_zero, drive), surrogate(drive, 0.0) * tangent
