"""The parts of P-SpikeSSM behind its samplers: mixing spikes across neurons, fusing the result.

Bal & Sengupta, "P-SpikeSSM: Harnessing Probabilistic Spiking State Space Models for Long-Range
Dependency Tasks", ICLR 2025.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.nn.dense import ACTIVATIONS, linear
from pspike_jax.nn.norm import Normalization


class SpikeMixer(nn.Module):
    """Mix spikes across the neurons of a layer: activation(W s + c) (the paper's eq. 10).

    Attributes:
      features: H of the result.
      mixer: "dense", or "none" for the ablation without W, where directions are averaged.
      activation: name in `nn.dense.ACTIVATIONS`.
      spiking: inputs are spikes, kept as bits for the backward pass; not in mean field.
    """

    features: int
    mixer: str
    activation: str
    spiking: bool

    @nn.compact
    def __call__(self, spikes: tuple[jax.Array, ...]) -> jax.Array:
        """Mix one (B, L, H) array of spikes, or two, concatenated: (B, L, H)."""
        if self.mixer == "none":
            return ACTIVATIONS[self.activation](sum(spikes) / len(spikes))
        joined = jnp.concatenate(spikes, axis=-1) if len(spikes) > 1 else spikes[0]
        width, dtype = joined.shape[-1], joined.dtype
        layer = linear(self.features, width, "linear", dtype, spiking=self.spiking)
        return ACTIVATIONS[self.activation](layer(joined))


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
