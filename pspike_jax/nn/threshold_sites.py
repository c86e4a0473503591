"""Values against a threshold, without a membrane: one-sided, ternary, or summed up."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import activity
from pspike_jax.functional.compartments import fire_by_sum
from pspike_jax.functional.neurons.firing import fire
from pspike_jax.functional.surrogates import SURROGATES, Surrogate
from pspike_jax.functional.ternary import SHARE, largest, ternary
from pspike_jax.nn.block import Pass
from pspike_jax.nn.roles import role


class ThresholdSite(nn.Module):
    """Fire where a value reaches a threshold; nothing is trained.

    Attributes:
      features: H.
      fan_out: operations that one spike triggers, for the activity record.
      surrogate: function, or name in `functional.SURROGATES`.
      threshold: V.
      fires_at_threshold: whether a value at the threshold fires.
    """

    features: int
    fan_out: int
    surrogate: str | Surrogate
    threshold: float
    fires_at_threshold: bool = True

    @nn.compact
    def __call__(self, drive: jax.Array, state: None, ctx: Pass):
        """Return spikes (B, L, H), None, and counts over valid steps."""
        v = drive.astype(jnp.float32) - self.threshold
        slope = SURROGATES.get(self.surrogate, self.surrogate)
        spikes = fire(slope, self.fires_at_threshold, v).astype(drive.dtype)
        record = activity(spikes, spikes, slope(v) != 0, ctx.mask, self.fan_out)
        if ctx.capture:
            record |= {"spike_array": spikes, "probability_array": spikes, "drive_array": v}
        return spikes, state, record

    @nn.nowrap
    def zero_state(self, batch_size: int) -> None:
        """Return None."""


class TernarySite(nn.Module):
    """Spikes of both signs, times a trained size: e^w ([x >= theta] - [-x >= theta]).

    theta is a share of the largest |x|. The record counts spikes of either sign; their signs are
    its "sign_array".

    Attributes:
      features: H.
      fan_out: operations that one spike triggers, for the activity record.
      surrogate: name in `functional.SURROGATES`.
      over: what the largest is taken over: "all" valid steps of the batch, so that outputs
        depend on the other examples and on the future, or the features of each "step".
      scaled: whether the size is trained; else it is 1.
      share: theta over the largest.
    """

    features: int
    fan_out: int
    surrogate: str = "arctan"
    over: str = "step"
    scaled: bool = True
    share: float = SHARE

    @nn.compact
    def __call__(self, drive: jax.Array, state: None, ctx: Pass):
        """Return graded spikes (B, L, H) in {-e^w, 0, e^w}, None, and counts over valid steps."""
        x = drive.astype(jnp.float32)
        if self.over == "step":
            theta = self.share * largest(x, axis=-1)
        else:
            mask = None if ctx.mask is None else ctx.mask[..., None]
            theta = self.share * largest(x, mask)
        slope = SURROGATES[self.surrogate]
        signs = ternary(x, theta, slope)
        active = (slope(x - theta) != 0) | (slope(-x - theta) != 0)
        events = jnp.abs(signs)
        record = activity(events, events, active, ctx.mask, self.fan_out)
        if ctx.capture:
            record |= {"spike_array": events, "probability_array": events, "sign_array": signs}
            record["drive_array"] = jnp.abs(x) - theta
        if self.scaled:
            signs = jnp.exp(log_size(self))[None, None] * signs
        return signs.astype(drive.dtype), state, record

    @nn.nowrap
    def zero_state(self, batch_size: int) -> None:
        """Return None."""


class SumSite(nn.Module):
    """Fire where the sum of what came in passes a multiple of the threshold (PMSN).

    Attributes:
      features: H.
      fan_out: operations that one spike triggers, for the activity record.
      surrogate: name in `functional.SURROGATES`.
      threshold: V.
    """

    features: int
    fan_out: int
    surrogate: str
    threshold: float

    @nn.compact
    def __call__(self, drive: jax.Array, state: jax.Array | None, ctx: Pass):
        """Return spikes (B, L, H) for drives that are not negative, what is left, and counts."""
        slope = SURROGATES[self.surrogate]
        y = drive.astype(jnp.float32)
        spikes, v, state = fire_by_sum(
            y, state, threshold=self.threshold, resets=ctx.resets, surrogate=slope
        )
        spikes = spikes.astype(drive.dtype)
        record = activity(spikes, spikes, slope(v) != 0, ctx.mask, self.fan_out)
        if ctx.capture:
            record |= {"spike_array": spikes, "probability_array": spikes, "drive_array": v}
        return spikes, state, record

    @nn.nowrap
    def zero_state(self, batch_size: int) -> jax.Array:
        """Return sums of nothing, (B, H)."""
        return jnp.zeros((batch_size, self.features), jnp.float32)


def log_size(module: nn.Module, name: str = "log_size", features: int = 1) -> jax.Array:
    """Return a module's trained log size of spikes, (features,), which starts at 0."""
    axes = ("features",) if features > 1 else (None,)
    init = role(nn.initializers.zeros, axes, "no_decay")
    return module.param(name, init, (features,), jnp.float32)
