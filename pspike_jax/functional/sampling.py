"""Spikes: a drive compared with a threshold, with a surrogate in the backward pass.

A probabilistic neuron fires iff its probability p exceeds a uniform u in [0, 1), which is
Bernoulli(p) exactly. The pre-clamp drive may be given for p: a drive <= 0 is below every u and a
drive >= 1 above every u, so clamping changes no spike.
"""

import functools

import jax
import jax.numpy as jnp

from pspike_jax.functional.noise import uniform_from_bits
from pspike_jax.functional.surrogates import INDICATORS, Surrogate, clamp_straight_through


def sample_spikes(
    p: jax.Array,
    key: jax.Array | None = None,
    *,
    noise: jax.Array | float | None = None,
    surrogate: Surrogate = clamp_straight_through,
) -> jax.Array:
    """Draw spikes that fire with probability clamp(p, 0, 1) (Bal & Sengupta 2024, SpikeSampler).

    Args:
      p: any shape, floating; spike probability, or the drive before it is clamped to [0, 1].
      key: PRNG key, consumed. Exactly one of `key` and `noise` is given.
      noise: uniforms in [0, 1) of p's shape, or one number for all elements; 0.5 makes the
        spikes deterministic.
      surrogate: function (drive, threshold) -> d spike / d drive, see `functional.surrogates`.

    Returns:
      Spikes in {0, 1} of p's shape and dtype; NaN where p is NaN.

    Raises:
      TypeError: p is not floating, or the surrogate is no function.
      ValueError: both or none of `key` and `noise` are given, or noise has another shape.
    """
    p = jnp.asarray(p)
    if not jnp.issubdtype(p.dtype, jnp.floating):
        raise TypeError(f"p must be floating, not {p.dtype}")
    if not callable(surrogate):
        raise TypeError(f"surrogate is {surrogate!r}; expected a function, see SURROGATES")
    if (key is None) == (noise is None):
        raise ValueError("give exactly one of key and noise")
    if noise is None:
        noise = uniform_from_bits(jax.random.bits(key, p.shape, jnp.uint32))
    noise = jnp.asarray(noise, jnp.float32)
    if noise.shape not in ((), p.shape):
        raise ValueError(f"noise has shape {noise.shape}; expected {p.shape} or a number")
    return heaviside(p, noise, surrogate)


def heaviside(drive: jax.Array, threshold: jax.Array | float, surrogate: Surrogate) -> jax.Array:
    """Fire where drive > threshold; the surrogate is the derivative with respect to the drive.

    Args:
      drive: any shape, floating.
      threshold: number or array of drive's shape; takes no gradient. Compared in float32.
      surrogate: function (drive, threshold) -> d spike / d drive.

    Returns:
      Spikes in {0, 1} of drive's shape and dtype; NaN where the drive is NaN.
    """
    return _fire(surrogate, drive, jnp.asarray(threshold, jnp.float32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _fire(surrogate, drive, threshold):
    fires = drive.astype(jnp.float32) > threshold
    return jnp.where(jnp.isnan(drive), drive, fires.astype(drive.dtype))


@_fire.defjvp
def _fire_jvp(surrogate, primals, tangents):
    drive, threshold = primals
    slope = surrogate(drive.astype(jnp.float32), threshold).astype(drive.dtype)
    moved = tangents[0]
    moved = masked(moved, slope != 0) if surrogate in INDICATORS else moved * slope
    return _fire(surrogate, drive, threshold), moved


def masked(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Return x where the mask is true, else 0; the backward pass keeps a bit of it an element.

    Args:
      x: any shape, floating.
      mask: bool, of x's shape; takes no gradient.

    Returns:
      Of x's shape and dtype.
    """

    # What a checkpoint keeps are its arguments, so that the bits are unpacked where they are used.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def apply(x, bits):
        return x * unpack_bits(bits, x.shape).astype(x.dtype)

    return apply(x, pack_bits(mask))


def pack_bits(mask: jax.Array) -> jax.Array:
    """Store a boolean array of any shape as uint8, eight elements of the last axis in each."""
    return jnp.packbits(jnp.atleast_1d(mask), axis=-1)


def unpack_bits(packed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return the boolean array of the given shape that `pack_bits` stored."""
    count = shape[-1] if shape else 1
    return jnp.unpackbits(packed, axis=-1, count=count).astype(bool).reshape(shape)


def expected_firing(p: jax.Array) -> jax.Array:
    """Return clamp(p, 0, 1) with gradient 1 on 0 <= p <= 1, ends included (mean field).

    `jnp.clip` has gradient 1/2 at its ends, where silent neurons sit.
    """
    return _clamp(p)


@jax.custom_jvp
def _clamp(p):
    return jnp.clip(p, 0, 1)


@_clamp.defjvp
def _clamp_jvp(primals, tangents):
    (p,), (moved,) = primals, tangents
    return _clamp(p), masked(moved, clamp_straight_through(p) != 0)
