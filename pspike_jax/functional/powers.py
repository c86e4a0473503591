"""Powers of discretised poles, accurate to float32 rounding however high they are.

Squaring doubles a relative error: Lambda^L by float32 squarings is wrong by up to L rounding
errors, 1e-3 at L = 16,384. Here the squarings run in pairs of floats (Dekker 1971, about 44 bits),
and a power is a product of at most log2(L) of them.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_SPLITTER = np.float32(2**12 + 1)

Pair = tuple[jax.Array, jax.Array]  # (high, low): the number is their unevaluated sum


def _two_sum(a, b) -> Pair:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a, b) -> Pair:
    def split(x):
        scaled = _SPLITTER * x
        high = scaled - (scaled - x)
        return high, x - high

    product = a * b
    (a_high, a_low), (b_high, b_low) = split(a), split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _multiply(x: Pair, y: Pair) -> Pair:
    product, error = _two_product(x[0], y[0])
    return _two_sum(product, error + (x[0] * y[1] + x[1] * y[0]))


def _add(x: Pair, y: Pair) -> Pair:
    total, error = _two_sum(x[0], y[0])
    return _two_sum(total, error + (x[1] + y[1]))


def _square(re: Pair, im: Pair) -> tuple[Pair, Pair]:
    minus_im_squared = tuple(-part for part in _multiply(im, im))
    cross = _multiply(re, im)
    return _add(_multiply(re, re), minus_im_squared), _add(cross, cross)


# Compiled functions are traced once for each shape, however often and wherever they are used.
@functools.partial(jax.jit, static_argnames="count")
def binary_powers(Lambda: jax.Array, count: int) -> jax.Array:
    """Return Lambda^(2^k) for k < count.

    Args:
      Lambda: (...) complex64.
      count: how many, at least 1.

    Returns:
      (count, ...) complex64, each rounded once; not meant to be differentiated.
    """

    def square(carry, _):
        (re, _), (im, _) = carry
        return _square(*carry), jax.lax.complex(re, im)

    return jax.lax.scan(square, _as_pairs(Lambda), length=count)[1]


def binary_power_error(Lambda: jax.Array, log2_exponent: int) -> jax.Array:
    """Return Lambda^(2^m) minus its value rounded to complex64, for m = log2_exponent.

    A recurrence that multiplies by the rounded power again and again drifts by this much a time;
    adding it to the multiplier takes the drift away.

    Args:
      Lambda: (...) complex64.
      log2_exponent: m, at least 1.

    Returns:
      (...) complex64; not meant to be differentiated.
    """
    squared = jax.lax.fori_loop(0, log2_exponent, lambda _, z: _square(*z), _as_pairs(Lambda))
    (_, re_low), (_, im_low) = squared
    return jax.lax.complex(re_low, im_low)


def _as_pairs(Lambda: jax.Array) -> tuple[Pair, Pair]:
    re, im = jnp.real(Lambda), jnp.imag(Lambda)
    return (re, jnp.zeros_like(re)), (im, jnp.zeros_like(im))


@functools.partial(jax.jit, static_argnums=(1, 2))
def powers(Lambda: jax.Array, length: int, log2_stride: int = 0) -> jax.Array:
    """Return Lambda^(stride j) for j = 0 .. length - 1, with stride = 2^log2_stride.

    Args:
      Lambda: (...) complex64.
      length: number of powers, at least 1.
      log2_stride: exponent of the stride.

    Returns:
      (length, ...) complex64.
    """
    return _powers(Lambda, length, log2_stride)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _powers(Lambda, length, log2_stride):
    binary = binary_powers(Lambda, log2_stride + max(length - 1, 0).bit_length())
    table = jnp.ones_like(Lambda)[None]
    for factor in binary[log2_stride:]:
        table = jnp.concatenate([table, table * factor[None]])
    return table[:length]


@_powers.defjvp
def _powers_jvp(length, log2_stride, primals, tangents):
    # d Lambda^(sj) = sj Lambda^(sj - 1), and Lambda^(sj - 1) = Lambda^(s - 1) Lambda^(s(j - 1)):
    # no division, so a pole at 0 keeps finite gradients.
    (Lambda,), (moved,) = primals, tangents
    table = powers(Lambda, length, log2_stride)
    moved = power(Lambda, 2**log2_stride - 1) * moved
    weight = np.arange(1, length, dtype=np.float32) * np.float32(2**log2_stride)
    weight = weight.astype(np.complex64).reshape(-1, *(1,) * Lambda.ndim)
    later = weight * (table[:-1] * moved[None])
    return table, jnp.concatenate([jnp.zeros_like(moved)[None], later])


@functools.partial(jax.jit, static_argnums=1)
def power(Lambda: jax.Array, exponent: int) -> jax.Array:
    """Return Lambda^exponent for one exponent >= 0, (...) complex64."""
    return _power(Lambda, exponent)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _power(Lambda, exponent):
    # A power of two is one entry of the squaring chain, rounded once: see binary_power_error.
    if exponent == 0:
        return jnp.ones_like(Lambda)
    binary = binary_powers(Lambda, exponent.bit_length())
    used = [binary[k] for k in range(exponent.bit_length()) if exponent >> k & 1]
    return math.prod(used, start=jnp.ones_like(Lambda))


@_power.defjvp
def _power_jvp(exponent, primals, tangents):
    (Lambda,), (moved,) = primals, tangents
    if exponent == 0:
        return power(Lambda, 0), jnp.zeros_like(moved)
    below = np.complex64(exponent) * power(Lambda, exponent - 1)
    return power(Lambda, exponent), below * moved
