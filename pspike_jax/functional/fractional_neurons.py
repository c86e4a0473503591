"""Neurons of fractional order, as steps for `solve` and `stream_step`.

    lif     D^alpha v = (I - v) / tau - s V / tau,    s = [v + (I - v) / tau >= V]
    if      the same without the leak
    behind  D^alpha v = (I - v) / tau; then s = [v >= V], and V is taken off where s = 1

The first two fire where one unit step would take them to the threshold, whatever the step is, and
their reset is a part of the rate, divided by tau. No gradient passes a reset.
"""

import dataclasses

import jax
import jax.numpy as jnp

from pspike_jax.functional.fractional import lif_rate
from pspike_jax.functional.neurons.firing import fire
from pspike_jax.functional.surrogates import Surrogate

FRACTIONAL_NEURONS = ("lif", "if", "behind")


@dataclasses.dataclass(frozen=True)
class FractionalNeuron:
    """A kind of neuron and its settings.

    Attributes:
      kind: one of `FRACTIONAL_NEURONS`.
      threshold: V.
      surrogate: derivative of a spike.
    """

    kind: str
    threshold: float
    surrogate: Surrogate

    def steps(self, tau: jax.Array):
        """Return what `solve` takes.

        Args:
          tau: () or (H,), the time constant, positive.

        Returns:
          rate: (v, current) -> (rate, outputs).
          settle: (v) -> (v, outputs), or None where the reset is a part of the rate.
        """
        tau = jnp.atleast_1d(tau)[None]
        spike = lambda drive: fire(self.surrogate, True, drive)
        if self.kind != "behind":
            return lif_rate(tau[0], self.threshold, spike, leaky=self.kind == "lif"), None

        def rate(v, current):
            return (current - v) / tau, v

        def settle(reached):
            spikes = spike(reached - self.threshold)
            settled = reached - jax.lax.stop_gradient(spikes) * self.threshold
            return settled, (spikes, settled, reached - self.threshold)

        return rate, settle

    def seen(self, outputs, current: jax.Array, tau: jax.Array):
        """Sort the outputs of steps.

        Args:
          outputs: as the functions of `steps` gave them.
          current: (L, B, H), what drove the steps.
          tau: as in `steps`.

        Returns:
          spikes, membrane, drive: (L, B, H) each. The membrane is that before a step, or behind it
          where the reset is; the drive is what decides on a spike.
        """
        if self.kind == "behind":
            return outputs[1]
        spikes, v = outputs
        tau = jnp.atleast_1d(tau)[None, None]
        slope = (current - v if self.kind == "lif" else current) / tau
        return spikes, v, v + slope - self.threshold
