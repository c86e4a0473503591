"""Functions of spikes whose backward pass keeps them as bits: 1/32 of the memory of floats.

They have backward passes of their own, and no forward-mode derivative.
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank

from pspike_jax.functional.meshes import is_split, vary_alike
from pspike_jax.functional.sampling import pack_bits, unpack_bits


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
    return _with_packed_spikes(function, *vary_alike((spikes, arguments)), magnitude)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _with_packed_spikes(function, spikes, arguments, magnitude):
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
    fires = unpack_bits(bits, (*bits.shape[:-1], *row.shape))
    spikes = jnp.where(fires, broadcast_to_rank(row, fires.ndim), 0)
    return jax.vjp(function, spikes, arguments)[1](cotangent)


_with_packed_spikes.defvjp(_packed_fwd, _packed_bwd)


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply x (..., F) with a matrix (F, H): (..., H).

    The backward pass is written out: autodiff would transpose the cotangent in memory, not x. Where
    explicit axes split the arrays, autodiff knows how the sum over examples is to be split.
    """
    x, kernel = vary_alike((x, kernel))
    return x @ kernel if is_split((x, kernel)) else _product(x, kernel)


@jax.custom_vjp
def _product(x, kernel):
    return x @ kernel


def _product_bwd(residuals, cotangent):
    x, kernel = residuals
    return cotangent @ kernel.T, jnp.einsum("...f,...h->fh", x, cotangent)


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_bwd)


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
