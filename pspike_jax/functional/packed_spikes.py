"""Functions of spikes whose backward pass keeps them as bits: 1/32 of the memory of floats."""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp

from pspike_jax.functional.sampling import pack_bits, unpack_bits


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def with_packed_spikes(
    function: Callable[[jax.Array, Any], Any],
    spikes: jax.Array,
    arguments: Any,
    magnitude: float = 1.0,
) -> Any:
    """Return function(spikes, arguments); its backward pass unpacks them and linearises again.

    Linearising again costs what the function would have kept beside its arguments: nothing in a
    product and in the chunked engine, a Fourier transform in a convolution, all states in a scan.

    Args:
      function: differentiable, with no array in its closure.
      spikes: (..., F), each element 0 or `magnitude`.
      arguments: pytree of arrays.
      magnitude: value of a spike: 1, or 1 / (1 - rate) behind dropout.

    Returns:
      What the function returns.
    """
    return function(spikes, arguments)


def _packed_fwd(function, spikes, arguments, magnitude):
    row = jnp.full(spikes.shape[-1:], magnitude, spikes.dtype)
    return function(spikes, arguments), (_bits(spikes), row, arguments)


def _bits(spikes):
    return pack_bits(spikes.astype(jnp.float32) != 0)  # comparisons are in float32 everywhere


def _packed_bwd(function, magnitude, residuals, cotangent):
    # Unpacking waits for the cotangent; it could else run, and fill memory, in the forward pass.
    bits, row, arguments = residuals
    bits, cotangent = jax.lax.optimization_barrier((bits, cotangent))
    spikes = jnp.where(unpack_bits(bits, (*bits.shape[:-1], *row.shape)), row, 0)
    return jax.vjp(function, spikes, arguments)[1](cotangent)


with_packed_spikes.defvjp(_packed_fwd, _packed_bwd)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply x (..., F) with a matrix (F, H): (..., H).

    The backward pass is written out: autodiff would transpose the cotangent in memory, not x.
    """
    return x @ kernel


def _product_bwd(residuals, cotangent):
    x, kernel = residuals
    return cotangent @ kernel.T, jnp.einsum("...f,...h->fh", x, cotangent)


product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_bwd)


def spike_product(spikes: jax.Array, kernel: jax.Array, magnitude: float = 1.0) -> jax.Array:
    """Multiply spikes with a matrix.

    Args:
      spikes: (..., F), each element 0 or `magnitude`.
      kernel: (F, H).
      magnitude: as in `with_packed_spikes`.

    Returns:
      (..., H).
    """
    return with_packed_spikes(product, spikes, kernel, magnitude)
