"""Ternary spikes: -1, 0 or 1, by a threshold that is a share of the largest entry.

    t = [x >= theta] - [-x >= theta],    theta = share max |x|
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.firing import fire
from pspike_jax.functional.surrogates import Surrogate, arctan

SHARE = 0.15


def largest(x: jax.Array, mask: jax.Array | None = None, axis: int | None = None) -> jax.Array:
    """Return max |x|, over all of x or along an axis, kept as an axis of size 1.

    Args:
      x: any shape.
      mask: bool, broadcasts against x: the entries that count; all if None.
      axis: None for all of x.

    Returns:
      Array of x's rank. Where several entries are the largest, each takes an equal share of the
      gradient.
    """
    size = jnp.abs(x)
    size = size if mask is None else jnp.where(mask, size, 0)
    return jnp.max(size, axis=axis, keepdims=True)


def ternary(
    x: jax.Array,
    theta: jax.Array,
    surrogate: Surrogate = arctan,
) -> jax.Array:
    """Return 1 where x >= theta, less 1 where -x >= theta.

    Args:
      x: any shape, float32.
      theta: broadcasts against x; takes a gradient, as x does.
      surrogate: function (v, 0.0) in the place of either step's derivative, v = x - theta or
        -x - theta.

    Returns:
      In {-1, 0, 1}, of x's shape; 0 where x and theta are both 0.
    """
    return fire(surrogate, True, x - theta) - fire(surrogate, True, -x - theta)
