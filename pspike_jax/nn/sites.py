"""Where spikes are made: drawn from probabilities, or by neurons that integrate, fire and reset.

A site maps (drive, state, ctx) to (spikes, state, activity), on any mixer of any family.
"""

from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons import (
    LIF,
    Evaluated,
    Firing,
    HardResetLIF,
    Neuron,
    NeuronState,
    RefractoryLIF,
    choose_evaluation,
    evaluate,
    init_recurrent,
    initial_state,
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
from pspike_jax.nn.surrogate_network import SurrogateSite
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
    """Spikes of neurons that fire by a threshold and reset: any `Neuron`.

    Attributes:
      neuron: the kind of neuron.
      features: H.
      surrogate: name in `functional.SURROGATES`.
      fan_out: operations that one spike triggers, for the activity record.
      affine: own scale and shift of the drive.
      detach_reset: the reset is a constant of the backward pass.
      bidirectional: a second pass of the same neurons from the end of each sequence to its start;
        its spikes are H more features.
      evaluation: "scan" step by step, "parallel" exactly in parallel, or "auto", see
        `functional.neurons.evaluate`.
    """

    neuron: Neuron
    features: int
    surrogate: str
    fan_out: int
    affine: bool = True
    detach_reset: bool = False
    bidirectional: bool = False
    evaluation: str = "auto"

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
          activity: counts over valid steps, with the spikes in the place of probabilities; run in
            parallel also "rows" (an example and a neuron), "open_rows" that had to be scanned, and
            "rounds".
        """
        neuron = self.neuron
        refuse_split_time("neurons that reset")
        params = {}
        if has_parameters(neuron):
            params = self.param("neuron", init_neuron(neuron), self.features)
        recurrent = None
        if neuron.recurrent:
            init = role(init_recurrent, ("inputs", "features"), "decay")
            recurrent = without_diagonal(self.param("recurrent", init, self.features))
        drive = scale_and_shift(self, drive) if self.affine else drive
        lengths, current = ctx.lengths, drive
        if self.bidirectional:
            current = jnp.concatenate([current, reverse_steps(current, lengths)], axis=0)
        found = evaluate(
            neuron,
            neuron.coefficients(params),
            current,
            self.zero_state(drive.shape[0]) if state is None else state,
            affine=affine,
            recurrent=recurrent,
            firing=Firing(SURROGATES[self.surrogate], self.detach_reset),
            evaluation=self.evaluation,
        )
        spikes, active = found.spikes, found.active
        if self.bidirectional:
            forward, backward = jnp.split(spikes, 2, axis=0)
            spikes = jnp.concatenate([forward, reverse_steps(backward, lengths)], axis=-1)
            active = sum(jnp.split(active, 2, axis=0))
        spikes, state = spikes.astype(drive.dtype), found.state
        record = activity(spikes, spikes, active[..., None], ctx.mask, self.fan_out)
        if choose_evaluation(self.evaluation, neuron) == "parallel":
            record |= effort_of(found, current)
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


def has_parameters(neuron: Neuron) -> bool:
    """Return whether a kind of neuron trains anything."""
    return bool(jax.eval_shape(lambda key: neuron.init(key, 1), jax.random.key(0)))


def effort_of(found: Evaluated, current: jax.Array) -> dict[str, jax.Array]:
    """Return what running in parallel took, as counts that may be summed over batches."""
    # Not a product of sizes: under export they may be symbols.
    rows = jnp.asarray(current.shape[0], jnp.float32) * jnp.float32(current.shape[-1])
    return {
        "rows": rows,
        "open_rows": jax.lax.stop_gradient(found.open_share) * rows,
        "rounds": found.rounds.astype(jnp.float32),
    }


def reverse_steps(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Reverse the valid steps of each example of x (B, L, H); padding stays where it is."""
    if lengths is None:
        return x[:, ::-1]
    steps = jnp.arange(x.shape[1], dtype=jnp.int32)[None, :]
    source = jnp.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return jnp.take_along_axis(x, source[..., None], axis=1)


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
    return SurrogateSite(config.d_model, config.surrogate, fan_out, name=name, **kwargs)


# What makes the spikes of a block, built from a model's configuration and the name of the site.
# With decays in this range and this threshold a drive of variance 1 makes 10 to 25 % of the LIF
# neurons fire, so that gradients flow from the first step on.
SITES = {
    "probabilistic": _sampler,
    "lif": _neurons(LIF((0.1, 0.9), threshold=0.5)),
    "hard_lif": _neurons(HardResetLIF(trained_leak=True, trained_threshold=True)),
    "refractory_lif": _neurons(
        RefractoryLIF(trained_leak=True, trained_threshold=True, trained_magnitude=True)
    ),
    "sdn": _surrogate_network,
    "prf": _resonators,
    "ternary": _ternary,
}
# Sites whose outputs are not 0 and 1 alone: what reads them cannot keep them as bits.
GRADED_SITES = frozenset({"ternary"})
# Sites that are parallel in time: rows may hold several examples, and a mesh may split time.
PARALLEL_SITES = frozenset({"probabilistic", "prf", "ternary"})
