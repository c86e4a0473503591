"""Where spikes are made: drawn from probabilities, or by neurons that integrate, fire and reset.

A site maps (drive, state, ctx) to (spikes, state, activity), on any mixer of any family.
"""

from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons import (
    LIF,
    Firing,
    Neuron,
    NeuronState,
    init_recurrent,
    initial_state,
    unroll,
    without_diagonal,
)
from pspike_jax.functional.sampling import expected_firing, sample_spikes
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.activity import activity
from pspike_jax.nn.affine import scale_and_shift
from pspike_jax.nn.block import Pass
from pspike_jax.nn.placement import refuse_split_time
from pspike_jax.nn.resonators import ResonatorSite
from pspike_jax.nn.roles import Role, role
from pspike_jax.nn.threshold_sites import TernarySite

Affine = tuple[jax.Array, jax.Array] | None


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
          activity: counts over valid steps, see `nn.activity`.
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


class NeuronSite(nn.Module):
    """Spikes of neurons that fire by a threshold, run step by step: any `Neuron`.

    Attributes:
      neuron: the kind of neuron.
      features: H.
      surrogate: name in `functional.SURROGATES`.
      fan_out: operations that one spike triggers, for the activity record.
      affine: own scale and shift of the drive.
      detach_reset: the reset is a constant of the backward pass.
      bidirectional: a second pass of the same neurons from the end of each sequence to its start;
        its spikes are H more features.
    """

    neuron: Neuron
    features: int
    surrogate: str
    fan_out: int
    affine: bool = True
    detach_reset: bool = False
    bidirectional: bool = False

    @nn.compact
    def __call__(
        self, drive: jax.Array, state: NeuronState | None, ctx: Pass, *, affine: Affine = None
    ) -> tuple[jax.Array, NeuronState, dict[str, jax.Array]]:
        """Run the neurons over time.

        Args:
          drive: (B, L, H) input currents.
          state: before the first step, (B, H) each, (2B, H) where bidirectional; rest if None.
          ctx: the pass.
          affine: gain and shift (H,) of the drive that are not yet applied, as a batch norm's.

        Returns:
          spikes: (B, L, H), or (B, L, 2H) where bidirectional.
          state: after the last step.
          activity: counts over valid steps, with the spikes in the place of probabilities.
        """
        neuron = self.neuron
        refuse_split_time("neurons that reset")
        params = self.param("neuron", init_neuron(neuron), self.features)
        recurrent = None
        if neuron.recurrent:
            init = role(init_recurrent, ("inputs", "features"), "decay")
            recurrent = without_diagonal(self.param("recurrent", init, self.features))
        drive = scale_and_shift(self, drive) if self.affine else drive
        lengths, current = ctx.lengths, drive.swapaxes(0, 1)
        if self.bidirectional:
            current = jnp.concatenate([current, reverse_steps(current, lengths)], axis=1)
        state = self.zero_state(drive.shape[0]) if state is None else state
        spikes, active, state = unroll(
            neuron,
            neuron.coefficients(params),
            current,
            state,
            affine=affine,
            recurrent=recurrent,
            firing=Firing(SURROGATES[self.surrogate], self.detach_reset),
        )
        if self.bidirectional:
            forward, backward = jnp.split(spikes, 2, axis=1)
            spikes = jnp.concatenate([forward, reverse_steps(backward, lengths)], axis=-1)
            active = sum(jnp.split(active, 2, axis=1))
        spikes = spikes.swapaxes(0, 1).astype(drive.dtype)
        record = activity(spikes, spikes, active.T[..., None], ctx.mask, self.fan_out)
        if ctx.capture:
            record |= {"spike_array": spikes, "probability_array": spikes}
        return spikes, state, record

    @nn.nowrap
    def zero_state(self, batch_size: int) -> NeuronState:
        """Return the state of neurons at rest."""
        rows = 2 * batch_size if self.bidirectional else batch_size
        return initial_state(self.neuron, rows, self.features)


def init_neuron(neuron: Neuron) -> Callable:
    """Return an initializer of a neuron's parameters, with their roles."""

    def init(key, features):
        return {
            name: Role(value, ("features",), neuron.groups.get(name, "dynamics"))
            for name, value in neuron.init(key, features).items()
        }

    return init


def reverse_steps(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Reverse the valid steps of each example of x (L, B, H); padding stays where it is."""
    if lengths is None:
        return x[::-1]
    steps = jnp.arange(len(x), dtype=jnp.int32)[:, None]
    source = jnp.where(steps < lengths[None, :], lengths[None, :] - 1 - steps, steps)
    return jnp.take_along_axis(x, source[..., None], axis=0)


def _sampler(config, name, **kwargs) -> SpikeSampler:
    sampler, fan_out = config.samplers[name], config.fan_out(name)
    return SpikeSampler(
        config.d_model, config.surrogate, fan_out, sampler=sampler, name=name, **kwargs
    )


def _neurons(neuron: Neuron):
    def build(config, name, **kwargs) -> NeuronSite:
        fan_out = config.fan_out(name)
        return NeuronSite(neuron, config.d_model, config.surrogate, fan_out, name=name, **kwargs)

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
        config.d_model, fan_out, surrogate=config.surrogate, scope="step", name=name, **kwargs
    )


# What makes the spikes of a block, built from a model's configuration and the name of the site.
# With decays in this range and this threshold a drive of variance 1 makes 10 to 25 % of the LIF
# neurons fire, so that gradients flow from the first step on.
SITES = {
    "probabilistic": _sampler,
    "lif": _neurons(LIF((0.1, 0.9), threshold=0.5)),
    "prf": _resonators,
    "ternary": _ternary,
}
# Sites whose outputs are not 0 and 1 alone: what reads them cannot keep them as bits.
GRADED_SITES = frozenset({"ternary"})
# Sites that are parallel in time: rows may hold several examples, and a mesh may split time.
PARALLEL_SITES = frozenset({"probabilistic", "prf", "ternary"})
