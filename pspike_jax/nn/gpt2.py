"""Transformer blocks as GPT-2 has them: pre-norm, one product for queries, keys and values."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.dense import linear
from pspike_jax.nn.norm import layer_norm

Cache = tuple[jax.Array, jax.Array]


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, heads: int) -> jax.Array:
    """Return softmax(q k^T / sqrt(E)) v of each head, the softmax in float32.

    Args:
      q: (B, Q, H E).
      k: (B, S, H E).
      v: (B, S, H E).
      mask: (B, Q, S) bool, or (1, Q, S): which keys a query sees, at least one.
      heads: H.

    Returns:
      (B, Q, H E).
    """
    by_head = lambda a: a.reshape(*a.shape[:2], heads, -1)
    q, k, v = by_head(q), by_head(k), by_head(v)
    scores = jnp.einsum("bqhe,bshe->bhqs", q, k, preferred_element_type=jnp.float32)
    scores = scores * jnp.float32(q.shape[-1] ** -0.5)
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)
    seen = jnp.einsum("bhqs,bshe->bqhe", weights.astype(v.dtype), v)
    return seen.reshape(*seen.shape[:2], -1)


class TransformerBlock(nn.Module):
    """x += W_o attention(norm(x)); x += W_2 gelu(W_1 norm(x)).

    Attributes:
      features: d.
      heads: H.
      dropout: rate, of what is added.
    """

    features: int
    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        cache: Cache | None,
        at: jax.Array | None,
        train: bool,
    ) -> tuple[jax.Array, Cache]:
        """Run the block.

        Args:
          x: (B, T, d).
          mask: (B, T, S) or (1, T, S) bool, which keys a step sees.
          cache: keys and values (B, S, d) into which those of x are put; None if there are no
            others.
          at: () int32, where they are put.
          train: drop.

        Returns:
          (B, T, d); keys and values.
        """
        d, dtype = self.features, x.dtype
        drop = nn.Dropout(self.dropout, deterministic=not train)
        dense = lambda size, fan_in, name: linear(size, fan_in, name, dtype, kernel="gpt2")
        q, k, v = jnp.split(dense(3 * d, d, "qkv")(layer_norm("norm_1")(x).astype(dtype)), 3, -1)
        if cache is not None:
            put = lambda a, new: jax.lax.dynamic_update_slice_in_dim(a, new.astype(a.dtype), at, 1)
            k, v = put(cache[0], k), put(cache[1], v)
        seen = attention(q, k.astype(dtype), v.astype(dtype), mask, self.heads)
        x = x + drop(dense(d, d, "project")(seen))
        hidden = dense(4 * d, d, "widen")(layer_norm("norm_2")(x).astype(dtype))
        return x + drop(dense(d, 4 * d, "narrow")(jax.nn.gelu(hidden))), (k, v)


class Transformer(nn.Module):
    """Blocks and a final norm.

    Attributes:
      features: d.
      heads: H.
      n_layers: number of blocks.
      dropout: as in `TransformerBlock`.
      remat: recompute a block's values in the backward pass.
    """

    features: int
    heads: int
    n_layers: int
    dropout: float = 0.0
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        caches: list[Cache] | None = None,
        at: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, list[Cache]]:
        """Run all blocks, see `TransformerBlock`; a cache for each, if any."""
        kind = nn.remat(TransformerBlock, static_argnums=(5,)) if self.remat else TransformerBlock
        kept = []
        for i in range(self.n_layers):
            block = kind(self.features, self.heads, self.dropout, name=f"blocks_{i}")
            x, cache = block(x, mask, None if caches is None else caches[i], at, train)
            kept.append(cache)
        return layer_norm("norm")(x).astype(x.dtype), kept

    @nn.nowrap
    def macs_per_row(self, keys: int) -> int:
        """Return multiply-accumulates of one step that sees this many keys."""
        return self.n_layers * (12 * self.features**2 + 2 * keys * self.features)
