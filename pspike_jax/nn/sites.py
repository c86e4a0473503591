"""Where spikes are made: drawn from probabilities, or by neurons that integrate, fire and reset.

A site maps (drive, state, ctx) to (spikes, state, activity), on any mixer of any family.
"""

from typing import Callable

import flax.linen as nn
import jax

from pspike_jax.functional.activity import activity
from pspike_jax.functional.neurons import LIF, HardResetLIF, Neuron, RefractoryLIF
from pspike_jax.functional.sampling import expected_firing, sample_spikes
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import scale_and_shift
from pspike_jax.nn.neuron_site import NeuronSite
from pspike_jax.nn.resonators import ResonatorSite
from pspike_jax.nn.surrogate_network import SurrogateSite
from pspike_jax.nn.threshold_sites import TernarySite


class SpikeSampler(nn.Module):
    """Turn a real drive into spikes: p = clamp(scale drive + shift, 0, 1), fire iff p > u.

    Attributes:
      features: H.
      surrogate: name in `functional.SURROGATES`.
      fan_out: operations that one spike triggers, for the activity record.
      sampler: which of the block's uniforms it compares with.
      affine: own scale and shift; without, the drive itself is clamped.
    """

    features: int
    surrogate: str
    fan_out: int
    sampler: int = 0
    affine: bool = True

    @nn.compact
    def __call__(
        self,
        drive: jax.Array,
        state: None,
        ctx: Pass,
        *,
        noise: jax.Array | None = None,
        norm: Callable[[jax.Array], jax.Array] | None = None,
    ) -> tuple[jax.Array, None, dict[str, jax.Array]]:
        """Sample spikes.

        Args:
          drive: (B, L, H).
          state: None: what fires by chance remembers nothing.
          ctx: the pass.
          noise: uniforms (B, L, H) or a number, drawn if None; unused in mean field.
          norm: applied between the affine map and the clamp, as the released program does.

        Returns:
          spikes: (B, L, H) in {0, 1}, or probabilities in mean field.
          state: None.
          activity: counts over valid steps, see `functional.activity`.
        """
        drive = scale_and_shift(self, drive) if self.affine else drive
        if norm is not None:
            drive = norm(drive)
        p = expected_firing(drive)
        slope = SURROGATES[self.surrogate]
        if ctx.sampling == "mean":
            spikes, threshold = p, 0.5
        else:
            noise = ctx.uniforms(self.sampler, self.features) if noise is None else noise
            spikes, threshold = sample_spikes(drive, noise=noise, surrogate=slope), noise
        record = activity(spikes, p, slope(drive, threshold) != 0, ctx.mask, self.fan_out)
        if ctx.capture:
            record |= {"spike_array": spikes, "probability_array": p}
        return spikes, state, record

    @nn.nowrap
    def zero_state(self, batch_size: int) -> None:
        """Return None."""


def _sampler(config, name, **kwargs) -> SpikeSampler:
    sampler, fan_out = config.samplers[name], config.fan_out(name)
    return SpikeSampler(
        config.d_model, config.surrogate, fan_out, sampler=sampler, name=name, **kwargs
    )


def _neurons(neuron: Neuron):
    def build(config, name, **kwargs) -> NeuronSite:
        return NeuronSite(
            neuron,
            config.d_model,
            config.surrogate,
            config.fan_out(name),
            evaluation=config.evaluation,
            name=name,
            **kwargs,
        )

    return build


def _resonators(config, name, **kwargs) -> ResonatorSite:
    fan_out = config.fan_out(name)
    # Steps of 0.1 to 1 and frequencies up to 2 pi: some steps of memory for any mixer's output.
    return ResonatorSite(
        config.d_model, fan_out, dt_min=0.1, dt_max=1.0, threshold=0.5, affine=True, name=name,
        surrogate=config.surrogate, **kwargs,
    )


def _ternary(config, name, **kwargs) -> TernarySite:
    fan_out = config.fan_out(name)
    return TernarySite(
        config.d_model, fan_out, surrogate=config.surrogate, over="step", name=name, **kwargs
    )


def _surrogate_network(config, name, **kwargs) -> SurrogateSite:
    fan_out = config.fan_out(name)
    return SurrogateSite(
        config.d_model, config.surrogate, fan_out, affine=True, name=name, **kwargs
    )


# What makes the spikes of a block, built from a model's configuration and the name of the site.
# With decays in this range and this threshold a drive of variance 1 makes 10 to 25 % of the LIF
# neurons fire, so that gradients flow from the first step on.
SITES = {
    "probabilistic": _sampler,
    "lif": _neurons(LIF((0.1, 0.9), threshold=0.5)),
    "hard_lif": _neurons(
        HardResetLIF(trained_leak=True, threshold=0.5, trained_threshold=True)
    ),
    "refractory_lif": _neurons(
        RefractoryLIF(
            trained_leak=True, threshold=0.5, trained_threshold=True, trained_magnitude=True
        )
    ),
    "sdn": _surrogate_network,
    "prf": _resonators,
    "ternary": _ternary,
}
# Sites whose outputs are not 0 and 1 alone: what reads them cannot keep them as bits.
GRADED_SITES = frozenset({"ternary"})
# Sites that are parallel in time: rows may hold several examples, and a mesh may split time.
PARALLEL_SITES = frozenset({"probabilistic", "prf", "ternary"})
