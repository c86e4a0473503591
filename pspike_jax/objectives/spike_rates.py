"""Counts of which some neurons, or the last steps, are hidden from the model that tells rates."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.objectives.counts import Counts
from pspike_jax.objectives.objective import Batch, check_shape, step_mask


@dataclasses.dataclass(frozen=True)
class SpikeRates(Counts):
    """`Counts` of which some neurons, or the last steps, are not among the inputs.

    Targets are (n, L + F, K). Besides the bits per spike of all counts there are those of neurons
    that are held out, "co_bps", and of the steps that are forecast, "fp_bps".

    Attributes:
      held_in: N, the neurons of the inputs, first among the targets; None where all are.
      forward_steps: F.
    """

    held_in: int | None = None
    forward_steps: int = 0

    def check(self, inputs, lengths, targets, where) -> None:
        """Refuse targets that are no counts of these steps; see `Objective.check`."""
        steps = inputs.shape[1] + self.forward_steps
        check_shape(targets, [(len(inputs), steps, self.num_outputs)], where)
        frame = np.broadcast_to(np.float32(0), (len(inputs), steps, 1))
        super().check(frame, lengths, targets, where)

    def __call__(self, outputs: jax.Array, batch: Batch):
        """Compare log rates with counts; see `Objective`."""
        lengths, counts = batch["lengths"], batch["targets"]
        ahead = jnp.where(lengths > 0, lengths + self.forward_steps, 0)
        losses, weights, measured = super().__call__(outputs, batch | {"lengths": ahead})
        observed = step_mask(lengths, counts.shape[1])[..., None]
        neuron = jnp.arange(counts.shape[2])[None, None]
        parts = {}
        if self.held_in is not None and self.held_in < counts.shape[2]:
            parts["co_bps"] = observed & (neuron >= self.held_in)
        if self.forward_steps:
            parts["fp_bps"] = ~observed & (neuron >= 0)
        for name, part in parts.items():
            only = batch | {"lengths": ahead, "targets": jnp.where(part, counts, -1)}
            found = super().__call__(outputs, only)[2]
            if "bits_per_spike" in found:
                measured[name] = found["bits_per_spike"]
        return losses, weights, measured

    def summary(self, outputs, targets, lengths) -> dict[str, Any]:
        """Put mean rates beside mean counts, see `Counts.summary`."""
        return super().summary(outputs, targets, lengths + self.forward_steps)
