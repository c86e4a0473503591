"""Attention among neighbours: a query sees the keys at most a window's width away.

Queries and keys are cut into blocks of the window's width; a block of queries meets its own keys,
those of the block before and, where it may look ahead, of the block behind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SCORES = ("softmax", "relu2")


class Keys(NamedTuple):
    """What queries meet.

    Attributes:
      k: (B, C, E).
      v: (B, C, V).
      position: (B, C) int32, the original positions, for the bias.
      valid: (B, C) bool.
      segment: (B, C) int32; a query sees keys of its own segment alone.
    """

    k: jax.Array
    v: jax.Array
    position: jax.Array
    valid: jax.Array
    segment: jax.Array


def window_attention(
    q: jax.Array, keys: Keys, bias: jax.Array, *, window: int, causal: bool, score: str
) -> jax.Array:
    """Attend within a window.

    Args:
      q: (B, C, E); a query sits where the key of its index sits.
      keys: the keys.
      bias: (2 M - 1,), added to scores: entry M - 1 + d for a key d positions behind the query's,
        the last one of either end for what is further away.
      window: w, how many slots away a key may be.
      causal: whether only keys at or before the query are seen.
      score: "softmax" of q k / sqrt(E) + bias; or "relu2", the square of relu(q k / W + bias),
        W = w, or 2 w where not causal, which does not add up to 1.

    Returns:
      (B, C, V) float32; 0 or a mean of values for a query that sees no key.
    """
    length = q.shape[1]
    blocks = -(-length // window)
    scale = q.shape[-1] ** -0.5 if score == "softmax" else 1 / (window if causal else 2 * window)
    cut = lambda a: _cut(a, blocks, window)
    q, query = cut(q * scale), Keys(*map(cut, keys))
    near = Keys(*(_with_neighbours(a, causal) for a in query))
    scores = jnp.einsum(
        "bnie,bnje->bnij", q, near.k, preferred_element_type=jnp.float32, precision="highest"
    )
    apart = near.position[:, :, None] - query.position[..., None]
    middle = (bias.shape[0] - 1) // 2
    scores = scores + bias[jnp.clip(apart + middle, 0, 2 * middle)].astype(jnp.float32)
    seen = near.valid[:, :, None] & (near.segment[:, :, None] == query.segment[..., None])
    seen = seen & _in_window(window, causal)[None, None]
    if score == "softmax":
        weights = jax.nn.softmax(jnp.where(seen, scores, jnp.float32(-1e30)), axis=-1)
    else:
        weights = jnp.square(jax.nn.relu(jnp.where(seen, scores, jnp.float32(0))))
    found = jnp.einsum("bnij,bnjv->bniv", weights, near.v.astype(jnp.float32), precision="highest")
    return found.reshape(found.shape[0], blocks * window, -1)[:, :length]


def _cut(a, blocks, window):
    """Return a (B, C, ...) as (B, blocks, window, ...), filled up with zeros."""
    rest = [(0, 0)] * (a.ndim - 2)
    a = jnp.pad(a, [(0, 0), (0, blocks * window - a.shape[1]), *rest])
    return a.reshape(a.shape[0], blocks, window, *a.shape[2:])


def _with_neighbours(a, causal):
    """Return each block of (B, blocks, w, ...) behind the one before it, and before the next."""
    rest = [(0, 0)] * (a.ndim - 2)
    before = jnp.pad(a, [(0, 0), (1, 0), *rest])[:, :-1]
    if causal:
        return jnp.concatenate([before, a], axis=2)
    behind = jnp.pad(a, [(0, 0), (0, 1), *rest])[:, 1:]
    return jnp.concatenate([before, a, behind], axis=2)


def _in_window(window, causal):
    """Return whether key j of the neighbours is in reach of query i of a block: (w, 2w or 3w)."""
    keys = jnp.arange((2 if causal else 3) * window, dtype=jnp.int32)[None] - window
    apart = keys - jnp.arange(window, dtype=jnp.int32)[:, None]
    return (apart >= -window) & (apart <= (0 if causal else window))
