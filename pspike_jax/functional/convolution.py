"""Convolution with the kernel of a diagonal SSM: kernels by two-level powers, and the FFT engine.

The kernel K_l = Re sum_n C_n Lambda_n^l B_n needs the powers of every pole. With l = q R + r they
factor into Lambda^(qR) Lambda^r, and the kernel into one small real matrix product per feature,

    K[q, r] = sum_n Re(C B Lambda^(qR))_n Re(Lambda^r)_n - Im(...)_n Im(Lambda^r)_n,

about 2 sqrt(L) powers a pole instead of L exponentials.
"""

import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.powers import power, powers


def _log2_block(length: int) -> int:
    """Return m with block size R = 2^m near sqrt(length)."""
    return max(length - 1, 0).bit_length() // 2


def ssm_kernel(Lambda_bar: jax.Array, coefficients: jax.Array, length: int) -> jax.Array:
    """Return Re sum_n coefficients_n Lambda_bar_n^l for l = 0 .. length - 1.

    Args:
      Lambda_bar: (H, N) complex64.
      coefficients: (..., H, N) complex64, C * B_bar for the kernel of the SSM.
      length: L.

    Returns:
      (..., H, L) float32.
    """
    log2_block = _log2_block(length)
    block = 2**log2_block
    blocks = -(-length // block)
    fine = powers(Lambda_bar, block)  # (R, H, N)
    coarse = powers(Lambda_bar, blocks, log2_block)  # (Q, H, N)
    weighted = coefficients[..., None, :, :]
    weighted = weighted * broadcast_to_rank(coarse, weighted.ndim)  # (..., Q, H, N)
    left = jnp.concatenate([weighted.real, -weighted.imag], axis=-1)
    right = jnp.concatenate([fine.real, fine.imag], axis=-1)
    kernel = jnp.einsum("...qhn,rhn->...hqr", left, right, precision="highest")
    return kernel.reshape(*kernel.shape[:-2], blocks * block)[..., :length]


def last_state(Lambda_bar: jax.Array, u: jax.Array) -> jax.Array:
    """Return sum_t Lambda_bar^(L - 1 - t) u_t, the state at the end for B_bar = 1.

    Args:
      Lambda_bar: (H, N) complex64.
      u: (..., L, H) float32.

    Returns:
      (..., H, N) complex64.
    """
    length = u.shape[-2]
    log2_block = _log2_block(length)
    block = 2**log2_block
    blocks = -(-length // block)
    padding = [(0, 0)] * (u.ndim - 2) + [(blocks * block - length, 0), (0, 0)]
    u = jnp.pad(u, padding).reshape(*u.shape[:-2], blocks, block, u.shape[-1])
    fine = powers(Lambda_bar, block)[::-1]  # (R, H, N)
    coarse = powers(Lambda_bar, blocks, log2_block)[::-1]  # (Q, H, N)

    def within(part):
        return jnp.einsum("...qrh,rhn->...qhn", u, part, precision="highest")

    states = jax.lax.complex(within(fine.real), within(fine.imag))  # (..., Q, H, N)
    return jnp.sum(states * broadcast_to_rank(coarse, states.ndim), axis=-3)


@jax.named_scope(Engine.FFT.scope)
def convolve(u: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve by FFT: y_t = sum_j K_j u_{t-j}, plus sum_j K[1]_j u_{t+1+j} where K is two-sided.

    Args:
      u: (..., L, H) real.
      kernel: (H, L') or two-sided (2, H, L'), L' <= L after the part beyond L is cut.

    Returns:
      (..., L, H) float32.
    """
    length = u.shape[-2]
    kernel = kernel[..., :length].astype(jnp.float32)
    size = fast_length(length + kernel.shape[-1])
    if kernel.ndim == 3:
        # The anti-causal tap j sits at lag -(1 + j), the end of the circle.
        gap = size - 2 * kernel.shape[-1]
        middle = jnp.zeros((*kernel.shape[1:-1], gap), kernel.dtype)
        kernel = jnp.concatenate([kernel[0], middle, kernel[1, :, ::-1]], axis=-1)
    spectrum = jnp.fft.rfft(jnp.swapaxes(u, -1, -2).astype(jnp.float32), size)
    response = broadcast_to_rank(jnp.fft.rfft(kernel, size), spectrum.ndim)
    y = jnp.fft.irfft(spectrum * response, size)[..., :length]
    return jnp.swapaxes(y, -1, -2)


def fast_length(length: int) -> int:
    """Return the smallest even number >= length whose only prime factors are 2, 3 and 5."""
    best = 2 ** max(length - 1, 1).bit_length()
    power5 = 1
    while power5 < best:
        power35 = power5
        while power35 < best:
            quotient = -(-length // power35)
            candidate = power35 * 2 ** max(1, (quotient - 1).bit_length())
            best = min(best, candidate) if candidate >= length else best
            power35 *= 3
        power5 *= 5
    return best


def convolution_ssm(
    u: jax.Array,
    Lambda_bar: jax.Array,
    B_bar: jax.Array,
    C: jax.Array,
    initial_state: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Evaluate the SSM by FFT; arguments and results as in `linear_ssm`, without D and resets.

    Args:
      u: (..., L, H) float32.
      Lambda_bar: (H, N) complex64.
      B_bar: (H, N) complex64.
      C: (H, N) or (2, H, N) complex64.
      initial_state: (..., H, N) complex64 or None.

    Returns:
      y: (..., L, H) float32.
      final_state: (..., H, N) complex64.
    """
    length = u.shape[-2]
    y = convolve(u, ssm_kernel(Lambda_bar, C * broadcast_to_rank(B_bar, C.ndim), length))
    state = last_state(Lambda_bar, u)
    final_state = broadcast_to_rank(B_bar, state.ndim) * state
    if initial_state is not None:
        causal = C if C.ndim == 2 else C[0]
        read = broadcast_to_rank(causal * Lambda_bar, initial_state.ndim) * initial_state
        response = ssm_kernel(Lambda_bar, read, length)
        y = y + jnp.swapaxes(response, -1, -2)
        decay = broadcast_to_rank(power(Lambda_bar, length), initial_state.ndim)
        final_state += decay * initial_state
    return y, final_state
