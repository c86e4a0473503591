"""Where neurons that integrate, fire and reset make spikes, step by step or in parallel."""

from typing import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import activity
from pspike_jax.functional.neurons import (
    Evaluated,
    Firing,
    Neuron,
    NeuronState,
    choose_evaluation,
    drive_traces,
    evaluate,
    init_recurrent,
    initial_state,
    without_diagonal,
)
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.block import Pass
from pspike_jax.nn.dense import scale_and_shift
from pspike_jax.nn.placement import refuse_split_time
from pspike_jax.nn.roles import Role, role

Affine = tuple[jax.Array, jax.Array] | None


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
        start = self.zero_state(drive.shape[0]) if state is None else state
        system = neuron, neuron.coefficients(params), current, start
        found = evaluate(
            *system,
            affine=affine,
            recurrent=recurrent,
            firing=Firing(SURROGATES[self.surrogate], self.detach_reset),
            evaluation=self.evaluation,
        )
        spikes, active = self._side_by_side(found.spikes, lengths), found.active
        if self.bidirectional:
            active = sum(jnp.split(active, 2, axis=0))
        spikes, state = spikes.astype(drive.dtype), found.state
        record = activity(spikes, spikes, active[..., None], ctx.mask, self.fan_out)
        if choose_evaluation(self.evaluation, neuron) == "parallel":
            record |= effort_of(found, current)
        if ctx.capture:
            drives = drive_traces(*system, found.spikes, affine=affine, recurrent=recurrent)
            record |= {"spike_array": spikes, "probability_array": spikes}
            record["drive_array"] = self._side_by_side(drives, lengths)
        return spikes, state, record

    @nn.nowrap
    def _side_by_side(self, array, lengths):
        """Put the second pass, of rows behind those of the first, beside it, in order of time."""
        if not self.bidirectional:
            return array
        forward, backward = jnp.split(array, 2, axis=0)
        return jnp.concatenate([forward, reverse_steps(backward, lengths)], axis=-1)

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
