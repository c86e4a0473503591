"""From inputs to real-valued features (B, L, H); spikes begin inside the first block."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.dense import linear


class Encoder(nn.Module):
    """Embed tokens, or map real-valued inputs linearly, step by step; no positional encoding.

    Attributes:
      d_model: H.
      vocab_size: number of tokens; None for real inputs.
      dtype: of the result, and of the product.
    """

    d_model: int
    vocab_size: int | None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Encode (B, L) int or (B, L, F) float inputs as (B, L, H)."""
        if self.vocab_size is not None:
            normal = nn.initializers.normal(1.0)
            embed = nn.Embed(
                self.vocab_size, self.d_model, self.dtype, embedding_init=normal, name="embed"
            )
            return embed(inputs)
        return linear(self.d_model, inputs.shape[-1], name="linear", dtype=self.dtype)(inputs)
