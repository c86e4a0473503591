"""One Transformer layer that normalises after each of its parts, as PyTorch's encoder layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.dense import linear
from pspike_jax.nn.norm import layer_norm
from pspike_jax.nn.roles import role

# T-Fixup's factor for a layer of N = 1: 0.67 (3 N)^(-1/4), on all products but that of the queries.
GAIN = 0.67 * 3**-0.25
MASKED = -1e30  # finite: a row of which nothing counts stays finite


class PostNormLayer(nn.Module):
    """Attention over all steps, then two products around a rectifier; no position code.

    Attributes:
      heads: number of heads, a divisor of the features.
      feedforward: width between the two products.
      dropout: rate, of attention weights, of the rectified values and of what either part adds.
      causal: a step sees itself and earlier ones alone.
      gain: factor of the initial kernels of all products but that of queries, keys and values.
    """

    heads: int
    feedforward: int
    dropout: float = 0.0
    causal: bool = False
    gain: float = GAIN

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None, train: bool = False) -> jax.Array:
        """Run the layer.

        Args:
          x: (B, L, D).
          mask: (B, L) bool, the steps that others may see, or None for all.
          train: drop values.

        Returns:
          (B, L, D).
        """
        features = x.shape[-1]
        drop = lambda y: nn.Dropout(self.dropout)(y, deterministic=not train)
        y = self._dense(features, features, "out_proj", False)(self._attend(x, mask, drop))
        x = layer_norm("norm1")(x + drop(y))
        y = jax.nn.relu(self._dense(self.feedforward, features, "linear1")(x))
        y = self._dense(features, self.feedforward, "linear2")(drop(y))
        return layer_norm("norm2")(x + drop(y))

    def _attend(self, x, mask, drop):
        batch, length, features = x.shape
        wide = linear(3 * features, features, "in_proj", kernel="xavier")(x)
        q, k, v = (
            part.reshape(batch, length, self.heads, -1) for part in jnp.split(wide, 3, axis=-1)
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (features // self.heads) ** -0.5
        if mask is not None:
            scores = jnp.where(mask[:, None, None], scores, MASKED)
        if self.causal:
            seen = jnp.tril(jnp.ones((length, length), bool))
            scores = jnp.where(seen[None, None], scores, MASKED)
        weights = drop(jax.nn.softmax(scores))
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)

    def _dense(self, features, fan_in, name, biased=True):
        """A dense layer whose bias starts at 0 unless `biased`."""
        bound = fan_in**-0.5 if biased else 0.0
        kernel = nn.initializers.variance_scaling(self.gain**2 / 3, "fan_in", "uniform")
        draw = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
        return nn.Dense(
            features,
            dtype=jnp.float32,
            kernel_init=role(kernel, ("inputs", "features"), "decay"),
            bias_init=role(draw, ("features",), "no_decay"),
            name=name,
        )

    @nn.nowrap
    def macs_per_step(self, features: int, length: int) -> int:
        """Return multiply-accumulates of a step among `length` steps."""
        return 4 * features**2 + 2 * features * length + 2 * features * self.feedforward
