"""Recurrent neurons: RLIF and RadLIF add s_{t-1} V to the input current (Bittar & Garner 2022).

V starts orthogonal. Its diagonal plays no part: a neuron does not feed itself.
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.adlif import AdLIF
from pspike_jax.functional.neurons.lif import LIF

RLIF = LIF(recurrent=True)
RADLIF = AdLIF(recurrent=True)


def init_recurrent(key: jax.Array, features: int) -> jax.Array:
    """Draw an orthogonal V; the key is consumed.

    Args:
      key: PRNG key, consumed.
      features: H.

    Returns:
      (H, H) float32; row i holds what neuron i sends to the others.
    """
    return jax.nn.initializers.orthogonal()(key, (features, features), jnp.float32)


def without_diagonal(matrix: jax.Array) -> jax.Array:
    """Set the diagonal of a square matrix to zero, in the backward pass too."""
    return jnp.where(jnp.eye(len(matrix), dtype=bool), 0, matrix)
