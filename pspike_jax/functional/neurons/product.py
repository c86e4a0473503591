"""The product of spikes with a matrix, whose backward pass keeps the spikes as bits."""

import functools

import jax
import jax.numpy as jnp

from pspike_jax.functional.sampling import pack_bits, unpack_bits


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def spike_product(spikes: jax.Array, kernel: jax.Array, magnitude: float = 1.0) -> jax.Array:
    """Multiply spikes with a matrix.

    Args:
      spikes: (..., F), each element 0 or `magnitude`.
      kernel: (F, H).
      magnitude: value of a spike: 1, or 1 / (1 - rate) behind dropout.

    Returns:
      (..., H).
    """
    return spikes @ kernel


def _product_fwd(spikes, kernel, magnitude):
    return spikes @ kernel, (pack_bits(spikes != 0), kernel)


def _product_bwd(magnitude, residuals, cotangent):
    bits, kernel = residuals
    # Unpacking waits for the cotangent; it could else run, and fill memory, in the forward pass.
    bits, cotangent = jax.lax.optimization_barrier((bits, cotangent))
    spikes_bar = cotangent @ kernel.T
    spikes = unpack_bits(bits, spikes_bar.shape).astype(cotangent.dtype)
    kernel_bar = jnp.einsum("...f,...h->fh", spikes, cotangent)
    return spikes_bar, magnitude * kernel_bar


spike_product.defvjp(_product_fwd, _product_bwd)
