"""From features (B, L, H) to class scores: pooling over valid steps, then a linear map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.dense import ACTIVATIONS, linear

POOLS = ("mean", "last", "none")


def masked_mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Average x (B, L, H) over the steps where mask (B, L) is true, all if None: (B, H)."""
    if mask is None:
        return jnp.mean(x, axis=1)
    weight = mask[..., None].astype(x.dtype)
    return jnp.sum(x * weight, axis=1) / jnp.sum(weight, axis=1)


def last_valid(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Return x (B, L, H) at the last valid step of each example: (B, H)."""
    if lengths is None:
        return x[:, -1]
    return jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]


def pool_steps(x: jax.Array, pool: str, lengths: jax.Array | None) -> jax.Array:
    """Pool x (B, L, H) over its first `lengths` steps: (B, H), or (B, L, H) for "none"; float32."""
    x = x.astype(jnp.float32)
    if pool == "last":
        return last_valid(x, lengths)
    if pool == "none":
        return x
    mask = None if lengths is None else jnp.arange(x.shape[1])[None, :] < lengths[:, None]
    return masked_mean(x, mask)


class Classifier(nn.Module):
    """Linear class scores.

    Attributes:
      num_classes: number of classes.
    """

    num_classes: int

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Map (..., H) to (..., num_classes)."""
        return linear(self.num_classes, pooled.shape[-1], name="linear")(pooled)


class Retrieval(nn.Module):
    """Compare two documents: GELU(W [f1, f2, f1 - f2, f1 f2]) and linear scores (LRA matching).

    Attributes:
      num_classes: number of classes.
    """

    num_classes: int

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        """Map pooled features of both documents, (B, 2, H), to (B, num_classes)."""
        features = pooled.shape[-1]
        first, second = pooled[:, 0], pooled[:, 1]
        pair = jnp.concatenate([first, second, first - second, first * second], axis=-1)
        hidden = ACTIVATIONS["gelu"](linear(features, 4 * features, name="compare")(pair))
        return linear(self.num_classes, features, name="linear")(hidden)
