"""Normalization over features or over the batch, with masks and PyTorch's statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.roles import role

EPSILON = 1e-5
ONES = role(nn.initializers.ones, ("features",), "no_decay")
ZEROS = role(nn.initializers.zeros, ("features",), "no_decay")


def layer_norm(name: str | None = None) -> nn.LayerNorm:
    """Return a layer norm computed in float32, as PyTorch's."""
    return nn.LayerNorm(
        EPSILON, jnp.float32, scale_init=ONES, bias_init=ZEROS, use_fast_variance=False, name=name
    )


class Normalization(nn.Module):
    """Layer norm or batch norm, chosen by name.

    Attributes:
      kind: "layer" (over H) or "batch" (over B and L, per feature).
      momentum: weight of the old running statistics, for "batch".
    """

    kind: str
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False):
        """Normalize x.

        Args:
          x: (B, L, H).
          mask: (B, L) bool, the positions that enter batch statistics; all if None.
          train: use and update batch statistics instead of the running ones.

        Returns:
          (B, L, H) float32.
        """
        if self.kind == "layer":
            return layer_norm("layer")(x)
        affine = BatchAffine(self.momentum, name="batch")(x, mask, train)
        gain, shift = (jax.lax.broadcast_to_rank(a, x.ndim) for a in affine)
        return x.astype(jnp.float32) * gain + shift


class BatchAffine(nn.Module):
    """Batch normalization as x gain + shift; running variance unbiased as in PyTorch.

    Attributes:
      momentum: weight of the old running statistics.
    """

    momentum: float

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Return gain and shift, (H,) float32, that normalize x (..., H) where mask (...) holds."""
        features = x.shape[-1:]
        scale = self.param("scale", ONES, features, jnp.float32)
        bias = self.param("bias", ZEROS, features, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        if train:
            mean, var, count = _moments(x.astype(jnp.float32), mask)
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                for running, new in ((running_mean, mean), (running_var, unbiased)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new
        else:
            mean, var = running_mean.value, running_var.value
        gain = scale * jax.lax.rsqrt(var + EPSILON)
        return gain, bias - mean * gain


# Recomputed in the backward pass, which would else keep x - mean: one more array of x's size.
@jax.checkpoint
def _moments(x, mask):
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        count = jnp.float32(x[..., 0].size)
        mean = jnp.mean(x, axes, keepdims=True)
        return mean.reshape(-1), jnp.mean(jnp.square(x - mean), axes), count
    weight = mask[..., None].astype(jnp.float32)
    count = jnp.sum(weight)
    mean = jnp.sum(weight * x, axes, keepdims=True) / count
    return mean.reshape(-1), jnp.sum(weight * jnp.square(x - mean), axes) / count, count
