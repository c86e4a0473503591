"""From inputs to real-valued features (B, L, H); spikes begin inside the first block."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.dense import linear
from pspike_jax.nn.roles import role


class Encoder(nn.Module):
    """Embed tokens, or map real-valued inputs linearly, step by step; no positional encoding.

    Attributes:
      d_model: H.
      vocab_size: number of tokens; None for real inputs.
      dtype: of the result, and of the product.
      kernel: how the linear map starts, a name in `dense.KERNELS`.
      scale: standard deviation of a new table.
    """

    d_model: int
    vocab_size: int | None
    dtype: jnp.dtype = jnp.float32
    kernel: str = "linear"
    scale: float = 1.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Encode (B, L) int or (B, L, F) float inputs as (B, L, H)."""
        if self.vocab_size is not None:
            normal = role(nn.initializers.normal(self.scale), ("tokens", "features"), "decay")
            embed = nn.Embed(
                self.vocab_size, self.d_model, self.dtype, embedding_init=normal, name="embed"
            )
            return embed(inputs)
        fan_in = inputs.shape[-1]
        dense = linear(self.d_model, fan_in, "linear", self.dtype, kernel=self.kernel)
        return dense(inputs)

    @nn.nowrap
    def macs_per_step(self, inputs: jax.Array) -> int:
        """Return multiply-accumulates of one step: none where a table is looked up."""
        return 0 if self.vocab_size is not None else self.d_model * inputs.shape[-1]


class InputFeatures(nn.Module):
    """Take inputs as they are; tokens become spikes on lines of their own.

    Attributes:
      vocab_size: number of tokens; None for real inputs.
      dtype: of the result.
      features: H that inputs must have, or None for any number.
    """

    vocab_size: int | None
    dtype: jnp.dtype = jnp.float32
    features: int | None = None

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return (B, L, F)."""
        if self.features not in (None, self.vocab_size or inputs.shape[-1]):
            raise ValueError(f"inputs have shape {inputs.shape}; expected (B, L, {self.features})")
        if self.vocab_size is not None:
            return jax.nn.one_hot(inputs, self.vocab_size, dtype=self.dtype)
        return inputs.astype(self.dtype)

    @nn.nowrap
    def macs_per_step(self, inputs: jax.Array) -> int:
        """Return 0: there is no arithmetic."""
        del inputs
        return 0
