"""Fixed prototypes as far apart as can be, and losses on directions towards them.

For K classes in d >= K dimensions, E = Q (I - 1 1^T / K) sqrt(K / (K - 1)) with orthonormal Q has
columns of length 1 whose products are all -1 / (K - 1): the figure to which classifiers collapse.
"""

import jax
import jax.numpy as jnp
import numpy as np

SCALE = 10.0  # of the dot regression


def simplex(features: int, classes: int, seed: int = 0) -> np.ndarray:
    """Draw prototypes; Q is that of a QR decomposition of uniform numbers, as in the program.

    Args:
      features: d, at least K.
      classes: K, at least 2.
      seed: not negative.

    Returns:
      (d, K) float32, E.

    Raises:
      ValueError: there are more classes than features.
    """
    if not 2 <= classes <= features:
        raise ValueError(f"{classes} classes in {features} features; expected 2 <= K <= d")
    Q, _ = np.linalg.qr(np.random.default_rng(seed).uniform(size=(features, classes)))
    centred = np.eye(classes) - 1 / classes
    return (Q @ centred * (classes / (classes - 1)) ** 0.5).astype(np.float32)


def directions(features: jax.Array) -> jax.Array:
    """Scale features (..., d) to unit length; 0 stays 0."""
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    some = squares > 0
    return jnp.where(some, features / jnp.sqrt(jnp.where(some, squares, 1)), 0)


def dot_regression(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Return 10 (<f / |f|, e_y> - 1)^2 / 2 of each example.

    Args:
      scores: (B, K), products of directions with prototypes.
      labels: (B,) integers; -1, which means none, gives what class 0 would.

    Returns:
      (B,).
    """
    own = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
    return SCALE / 2 * (own - 1) ** 2


def root_energy(values: jax.Array, rows: jax.Array) -> jax.Array:
    """Return the Frobenius norm of the chosen rows, divided by the number of their entries.

    Args:
      values: (B, ...).
      rows: (B,) bool.

    Returns:
      () scalar, 0 where no row is chosen.
    """
    wide = rows.reshape(-1, *[1] * (values.ndim - 1))
    squares = jnp.sum(jnp.where(wide, values**2, 0))
    some = squares > 0
    length = jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), 0)
    return length / jnp.maximum(jnp.sum(rows) * (values.size // len(rows)), 1).astype(length.dtype)


def alignment(values: jax.Array, rows: jax.Array) -> jax.Array:
    """Return |cos| / 2 between the means of the chosen rows and of the others.

    Args:
      values: (B, ..., n), averaged over all but the last axis.
      rows: (B,) bool.

    Returns:
      () scalar.
    """
    each = jnp.mean(values, axis=tuple(range(1, values.ndim - 1)))
    means = [
        jnp.sum(jnp.where(chosen[:, None], each, 0), axis=0)
        / jnp.maximum(jnp.sum(chosen), 1).astype(each.dtype)
        for chosen in (rows, ~rows)
    ]
    return jnp.abs(jnp.vdot(*map(directions, means))) / 2
