"""Surrogates with a scale, as the f-SNN program (spikeDE) defines them.

With v the distance to the threshold and k the scale:

    arctan     (k / 2) / (1 + (pi k v / 2)^2)     k = 2 is `surrogates.arctan`
    sigmoid    k s (1 - s),  s = 1 / (1 + exp(-k v))
    gaussian   the density of N(0, k^2)
    piecewise  1 / (2 k) where |v| <= k, else 0

A larger scale is sharper for the first two, and wider for the others.
"""

import functools
import math

import jax
import jax.numpy as jnp

from pspike_jax.functional.surrogates import Surrogate, sigmoid

SCALED_SURROGATES = ("arctan", "sigmoid", "gaussian", "piecewise")


@functools.cache
def scaled_surrogate(name: str, scale: float) -> Surrogate:
    """Return the surrogate of a name and a scale; equal arguments give the same function.

    Args:
      name: one of `SCALED_SURROGATES`.
      scale: positive.

    Returns:
      (drive, threshold) -> d spike / d drive.

    Raises:
      ValueError: an unknown name, or a scale that is not positive.
    """
    if name not in SCALED_SURROGATES or not scale > 0:
        expected = ", ".join(SCALED_SURROGATES)
        raise ValueError(f"got {name!r} of scale {scale}; expected {expected}, positive")

    def slope(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
        v = drive - threshold
        if name == "arctan":
            return scale / 2 / (1 + jnp.square(math.pi / 2 * scale * v))
        if name == "sigmoid":
            return sigmoid(v, 0.0, scale)
        if name == "gaussian":
            return jnp.exp(-jnp.square(v / scale) / 2) / (scale * math.sqrt(2 * math.pi))
        return (jnp.abs(v) <= scale).astype(v.dtype) / (2 * scale)

    return slope
