"""The parts of P-SpikeSSM: sampling spikes, mixing them across neurons, fusing with the residual.

Bal & Sengupta, "P-SpikeSSM: Harnessing Probabilistic Spiking State Space Models for Long-Range
Dependency Tasks", ICLR 2025.
"""

from typing import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from pspike_jax.functional.noise import uniforms
from pspike_jax.functional.sampling import expected_firing, sample_spikes
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.activity import activity
from pspike_jax.nn.dense import ACTIVATIONS, linear
from pspike_jax.nn.norm import Normalization


@flax.struct.dataclass
class Noise:
    """Where the uniforms of a pass come from: a key, one number, or arrays.

    Attributes:
      key: threefry key of the whole pass, or None.
      example_ids: (B,) int, names of the examples.
      steps: (L,) int, time steps since the start of the sequence.
      number: scalar that replaces every uniform, or None.
      arrays: tuple of (B, L, H) uniforms, one for each sampler of this layer, or None.
    """

    key: jax.Array | None
    example_ids: jax.Array
    steps: jax.Array
    number: jax.Array | None = None
    arrays: tuple[jax.Array, ...] | None = None

    def uniforms(self, layer: jax.Array, sampler: int, features: int) -> jax.Array:
        """Return the (B, L, H) uniforms, or the number, that a sampler compares with."""
        if self.number is not None:
            return self.number
        if self.arrays is not None:
            return self.arrays[sampler]
        return uniforms(
            self.key,
            layer=layer,
            sampler=sampler,
            example_ids=self.example_ids,
            steps=self.steps,
            features=features,
        )


class SpikeSampler(nn.Module):
    """Turn a real drive into spikes: p = clamp(scale drive + shift, 0, 1), fire iff p > u.

    Attributes:
      features: H.
      sampling: "spikes", or "mean" for p in place of spikes (mean field).
      surrogate: name in `functional.SURROGATES`.
      fan_out: operations that one spike triggers, for the activity record.
      affine: own scale and shift; without, the drive itself is clamped.
      capture: add the full spike and probability arrays to the record.
    """

    features: int
    sampling: str
    surrogate: str
    fan_out: int
    affine: bool = True
    capture: bool = False

    @nn.compact
    def __call__(
        self,
        drive: jax.Array,
        noise: jax.Array | None,
        mask: jax.Array | None,
        norm: Callable[[jax.Array], jax.Array] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Sample spikes.

        Args:
          drive: (B, L, H).
          noise: uniforms (B, L, H) or a number; unused in mean field.
          mask: (B, L) bool, the steps that count as activity; all if None.
          norm: applied between the affine map and the clamp, as the released program does.

        Returns:
          spikes: (B, L, H) in {0, 1}, or probabilities in mean field.
          activity: counts over valid steps, see `nn.activity`.
        """
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, (self.features,))
            shift = self.param("shift", nn.initializers.zeros, (self.features,))
            drive = scale[None, None] * drive + shift[None, None]
        if norm is not None:
            drive = norm(drive)
        p = expected_firing(drive)
        slope = SURROGATES[self.surrogate]
        if self.sampling == "mean":
            spikes, threshold = p, 0.5
        else:
            spikes, threshold = sample_spikes(drive, noise=noise, surrogate=slope), noise
        record = activity(spikes, p, slope(drive, threshold) != 0, mask, self.fan_out)
        if self.capture:
            record |= {"spike_array": spikes, "probability_array": p}
        return spikes, record


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
