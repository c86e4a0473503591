"""Normalization over features or over the batch, with masks and PyTorch's statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.roles import role

EPSILON = 1e-5
# How a batch norm finds its statistics.
#   batch     training by the batch, evaluation by running means of what training saw.
#   running   training, too, by the running means, after their update with the batch, which alone
#             lets a gradient through; the first batch starts them. Equinox calls this "ema".
#   debiased  as "batch", and evaluation divides the running means by 1 - momentum^batches. Their
#             variance starts at 1, not 0, so that this one is far too large at first, as in the
#             "batch" mode of Equinox.
STATISTICS = ("batch", "running", "debiased")
ONES = role(nn.initializers.ones, ("features",), "no_decay")
ZEROS = role(nn.initializers.zeros, ("features",), "no_decay")


def layer_norm(name: str | None = None, epsilon: float = EPSILON) -> nn.LayerNorm:
    """Return a layer norm computed in float32, as PyTorch's."""
    return nn.LayerNorm(
        epsilon, jnp.float32, scale_init=ONES, bias_init=ZEROS, use_fast_variance=False, name=name
    )


def rms_norm(name: str | None = None, epsilon: float = EPSILON) -> nn.RMSNorm:
    """Return x / sqrt(mean(x^2) + epsilon) with a gain, over H, computed in float32."""
    return nn.RMSNorm(
        epsilon, jnp.float32, scale_init=ONES, use_fast_variance=False, name=name
    )


class Normalization(nn.Module):
    """Layer or root-mean-square norm over H, or batch norm over B and L of each feature, by name.

    Attributes:
      kind: "layer", "rms", or how training and evaluation find a batch norm's statistics: one of
        `STATISTICS`.
      momentum: weight of the old running statistics, for batch norms.
      affine: a trained gain and shift follow; a layer norm always has them,
        an "rms" norm the gain.
      unbiased: the running variance is that of a sample, as PyTorch's; else that of the batch.
      epsilon: added to variances.
    """

    kind: str
    momentum: float = 0.9
    affine: bool = True
    unbiased: bool = True
    epsilon: float = EPSILON

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
            return layer_norm("layer", self.epsilon)(x)
        if self.kind == "rms":
            return rms_norm("rms", self.epsilon)(x)
        batch = BatchAffine(
            self.momentum, self.kind, self.affine, self.unbiased, self.epsilon, name="batch"
        )
        gain, shift = (jax.lax.broadcast_to_rank(a, x.ndim) for a in batch(x, mask, train))
        return x.astype(jnp.float32) * gain + shift


class BatchAffine(nn.Module):
    """Batch normalization as x gain + shift.

    Attributes:
      momentum: weight of the old running statistics.
      statistics: one of `STATISTICS`.
      affine, unbiased, epsilon: as in `Normalization`.
    """

    momentum: float
    statistics: str = "batch"
    affine: bool = True
    unbiased: bool = True
    epsilon: float = EPSILON

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Return gain and shift, (H,) float32, that normalize x (..., H) where mask (...) holds."""
        features = x.shape[-1:]
        if self.affine:
            scale = self.param("scale", ONES, features, jnp.float32)
            bias = self.param("bias", ZEROS, features, jnp.float32)
        mean, var = self._evaluated(x, mask, train)
        gain = jax.lax.rsqrt(var + self.epsilon)
        if not self.affine:
            return gain, -mean * gain
        return scale * gain, bias - mean * (scale * gain)

    def _evaluated(self, x, mask, train):
        """Return the mean and the variance that x is normalized by; update the running ones."""
        features = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        counted = self.statistics != "batch"
        count = None
        if counted:
            count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.float32)
        if train:
            *found, size = _moments(x.astype(jnp.float32), mask)
            kept = list(found)
            if self.unbiased:
                kept[1] = found[1] * size / jnp.maximum(size - 1, 1)
            old = self.momentum
            if self.statistics == "running":
                old = jnp.where(count.value > 0, self.momentum, 0)
            new = [
                old * running.value + (1 - old) * one
                for running, one in zip((running_mean, running_var), kept)
            ]
            if not self.is_initializing():
                running_mean.value, running_var.value = new
                if counted:
                    count.value = count.value + 1
            return new if self.statistics == "running" else found
        mean, var = running_mean.value, running_var.value
        if self.statistics != "debiased":
            return mean, var
        # Before the first batch there is nothing to divide: then as they are.
        weight = 1 - jnp.power(jnp.float32(self.momentum), count.value)
        weight = jnp.where(count.value > 0, weight, 1)
        return mean / weight, var / weight


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


class ClampFuse(nn.Module):
    """Fuse a block's output with its input and normalise; the next sampler clamps the result.

    Attributes:
      residual: add the input.
      dropout: rate; one mask for all steps of an example and feature.
      norm: "batch" or "layer" after the sum; None where blocks normalise their input instead.
    """

    residual: bool
    dropout: float
    norm: str | None

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array, mask: jax.Array | None, train: bool
    ) -> jax.Array:
        """Fuse x and y, (B, L, H) each; mask (B, L) selects what enters batch statistics."""
        if self.residual:
            x = x + nn.Dropout(self.dropout, broadcast_dims=(1,))(y, deterministic=not train)
        else:
            x = y
        if self.norm is None:
            return x
        return Normalization(self.norm, name="norm")(x, mask, train).astype(x.dtype)
