"""Surrogates: what stands for the derivative of a spike in the backward pass.

A spike is 1[drive > threshold]; its derivative is zero almost everywhere. Each function here
returns the value that replaces d spike / d drive, with v = drive - threshold. For a sampled
spike the threshold is the uniform that it is compared with; for a neuron it is its firing
threshold.
"""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp

Surrogate = Callable[..., jax.Array]


def clamp_straight_through(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
    """Return 1 where 0 <= drive <= 1, ends included, else 0; the threshold plays no part.

    The spike is replaced by its expectation clamp(drive, 0, 1), whose derivative is 1 at its
    ends, where silent neurons sit (Bal & Sengupta 2024, section 3.2).
    """
    del threshold
    return ((drive >= 0) & (drive <= 1)).astype(drive.dtype)


def boxcar(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
    """Return 1 where -1/2 < v <= 1/2, else 0 (Kaiser et al. 2020)."""
    v = drive - threshold
    return ((v > -0.5) & (v <= 0.5)).astype(v.dtype)


def arctan(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
    """Return 1 / (1 + (pi v)^2), the derivative of arctan(pi v) / pi (Fang et al. 2021)."""
    v = drive - threshold
    return 1 / (1 + jnp.square(jnp.pi * v))


def triangular(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
    """Return max(0, 1 - |v|) (Esser et al. 2016)."""
    return jnp.maximum(0, 1 - jnp.abs(drive - threshold))


def superspike(
    drive: jax.Array, threshold: jax.Array | float = 0.0, slope: float = 10.0
) -> jax.Array:
    """Return 1 / (1 + slope |v|)^2 (SuperSpike, Zenke & Ganguli 2018)."""
    return 1 / jnp.square(1 + slope * jnp.abs(drive - threshold))


def sigmoid(drive: jax.Array, threshold: jax.Array | float = 0.0, slope: float = 4.0) -> jax.Array:
    """Return slope s (1 - s) with s = 1 / (1 + exp(-slope v)); 1 at v = 0 for the default slope."""
    v = slope * (drive - threshold)
    # sigmoid(v) sigmoid(-v) equals s (1 - s) and cannot overflow on either side.
    return slope * jax.nn.sigmoid(v) * jax.nn.sigmoid(-v)


def window(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
    """Return 1 where |v| < 1, ends excluded, else 0 (PMSN)."""
    return (jnp.abs(drive - threshold) < 1).astype(drive.dtype)


def multi_gaussian(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
    """Return 1.15 g(v; 0, 1/2) - 0.15 g(v; 1/2, 3) - 0.15 g(v; -1/2, 3) (Yin et al. 2021).

    g(v; m, w) = exp(-((v - m) / w)^2 / 2) is not normalised (S5-RF).
    """
    v = drive - threshold
    bell = lambda middle, width: jnp.exp(-0.5 * jnp.square((v - middle) / width))
    return 1.15 * bell(0.0, 0.5) - 0.15 * bell(0.5, 3.0) - 0.15 * bell(-0.5, 3.0)


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """The surrogate 1 where |v| < width / 2, else 0; equal widths are equal functions."""

    width: float = 1.0

    def __call__(self, drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
        return (jnp.abs(drive - threshold) < self.width / 2).astype(drive.dtype)


@dataclasses.dataclass(frozen=True)
class Triangle:
    """The surrogate max(0, width - |v|) / width^2, whose integral is 1 for any width."""

    width: float = 1.0

    def __call__(self, drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
        return jnp.maximum(0, self.width - jnp.abs(drive - threshold)) / self.width**2


def no_gradient(drive: jax.Array, threshold: jax.Array | float = 0.0) -> jax.Array:
    """Return 0: spikes are constants of the backward pass."""
    return jnp.zeros_like(drive - threshold)


SURROGATES: dict[str, Surrogate] = {
    "clamp_straight_through": clamp_straight_through,
    "boxcar": boxcar,
    "arctan": arctan,
    "triangular": triangular,
    "superspike": superspike,
    "sigmoid": sigmoid,
    "window": window,
    "multi_gaussian": multi_gaussian,
    "none": no_gradient,
}

# Surrogates whose values are 0 and 1 alone: one bit an element is all that they leave behind.
INDICATORS = frozenset({clamp_straight_through, boxcar, window, no_gradient})
