"""Dropout that XLA can fuse, with a mask that the backward pass keeps as bits."""

import functools

import jax
import jax.numpy as jnp

from pspike_jax.functional.noise import uniforms
from pspike_jax.functional.sampling import pack_bits, unpack_bits


def dropout(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """Set elements to zero with probability `rate` and divide the others by 1 - rate.

    Args:
      x: three axes, real.
      key: threefry key, consumed.
      rate: in [0, 1).

    Returns:
      Array of x's shape and dtype.

    Raises:
      ValueError: the rate is outside [0, 1), or x has other than three axes.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate is {rate}; expected a number in [0, 1)")
    if x.ndim != 3:
        raise ValueError(f"x has shape {x.shape}; expected three axes")
    rows, columns, features = x.shape
    noise = uniforms(
        key,
        layer=0,
        sampler=0,
        example_ids=jnp.arange(rows),
        steps=jnp.arange(columns),
        features=features,
    )
    # Packed at once: the cipher behind the noise would else run again for each use of the mask.
    return _mask(x, pack_bits(noise >= rate), 1 / (1 - rate))


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=2)
def _mask(x, bits, scale):
    """Linear in x, so that a checkpoint, which keeps its arguments, keeps the bits alone."""
    return jnp.where(unpack_bits(bits, x.shape), x * scale, 0).astype(x.dtype)
