"""Leaky integrate-and-fire neurons in the place of a sampler: the baseline, sequential in time."""

import flax.linen as nn
import jax

from pspike_jax.functional.neurons import LIF, Firing, NeuronState, initial_state, unroll
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.nn.activity import activity
from pspike_jax.nn.placement import refuse_split_time

# With decays in this range and this threshold a drive of variance 1 makes 10 to 25 % of the
# neurons fire, so that gradients flow from the first step on.
NEURON = LIF((0.1, 0.9), threshold=0.5)


class LIFReadout(nn.Module):
    """Spikes of LIF neurons with trained leak, driven by scale drive + shift.

    Attributes:
      features: H.
      surrogate: name in `functional.SURROGATES`.
      fan_out: operations that one spike triggers, for the activity record.
      capture: add the full spike array to the record.
    """

    features: int
    surrogate: str
    fan_out: int
    capture: bool = False

    @nn.compact
    def __call__(
        self, drive: jax.Array, mask: jax.Array | None, state: NeuronState | None
    ) -> tuple[jax.Array, dict[str, jax.Array], NeuronState]:
        """Run the neurons over time.

        Args:
          drive: (B, L, H).
          mask: (B, L) bool, the steps that count as activity; all if None.
          state: before the first step; at rest if None.

        Returns:
          spikes: (B, L, H) in {0, 1}; activity: as `nn.activity`, with the spikes in the
          place of probabilities; the final state.
        """
        refuse_split_time("LIF neurons")
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        shift = self.param("shift", nn.initializers.zeros, (self.features,))
        coefficients = NEURON.coefficients(
            {"alpha": self.param("alpha", lambda key: NEURON.init(key, self.features)["alpha"])}
        )
        currents = (scale[None, None] * drive + shift[None, None]).swapaxes(0, 1)
        state = initial_state(NEURON, drive.shape[0], self.features) if state is None else state
        firing = Firing(SURROGATES[self.surrogate])
        spikes, active, state = unroll(NEURON, coefficients, currents, state, firing=firing)
        spikes = spikes.swapaxes(0, 1).astype(drive.dtype)
        record = activity(spikes, spikes, active.T[..., None], mask, self.fan_out)
        if self.capture:
            record |= {"spike_array": spikes, "probability_array": spikes}
        return spikes, record, state
