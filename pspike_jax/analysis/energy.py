"""Energy of a spiking model against its dense twin, from counted operations.

The dense twin has the same shapes and passes a real number where the spiking model passes a
spike. Per example, with E_MAC = 4.6 pJ and E_AC = 0.9 pJ (32-bit, 45 nm CMOS: Horowitz, ISSCC
2014; the numbers that Bal & Sengupta 2024 use):

  spiking = E_AC sum_sites spikes fan_out          + E_MAC (encoder + head + real) [+ E_MAC state]
  dense   = E_MAC sum_sites steps neurons fan_out  + E_MAC (encoder + head + real) [+ E_MAC state]

Counted:
  synaptic operations  each spike times the operations it triggers: accumulations in the spiking
                       model, one multiply-accumulate per step and synapse in the twin
  encoder, head, real  multiply-accumulates in both, their inputs are real numbers in both: of the
                       encoder (a table of tokens costs none), of the head, and of what else in
                       the layers multiplies real numbers (all other entries of aux["macs"])
  state updates        in brackets above, so always reported apart: the state is real-valued in
                       both. For each neuron, step and conjugate pair of a linear state, 4 for
                       decaying the pair (a complex product) and 2 for reading out its real part.
                       A dense or low-rank transition is counted in its diagonal form.
Not counted: memory traffic, normalisation and affine maps, activation functions, pooling,
  residual sums, potentials of neurons that reset, and drawing the noise.

Models count their own multiply-accumulates and return them in `aux["macs"]`. The published count
leaves the state updates out, and with them a factor of the state size. Other prices than these,
with memory traffic among them, are in `costs.py`.
"""

from typing import NamedTuple

import numpy as np

from pspike_jax.analysis.activity import Aux
from pspike_jax.analysis.costs import OPERATIONS, Cost


class Energy(NamedTuple):
    """Operations per example, and what they cost in picojoules.

    Attributes:
      synaptic_ops: accumulations that spikes trigger.
      dense_macs: multiply-accumulates of the same synapses in the dense twin.
      encoder_macs: multiply-accumulates of the encoder.
      head_macs: multiply-accumulates of the head.
      real_macs: other multiply-accumulates of real numbers.
      state_macs: multiply-accumulates that update and read the states.
    """

    synaptic_ops: float
    dense_macs: float
    encoder_macs: float
    head_macs: float
    real_macs: float
    state_macs: float

    def spiking(self, *, state_updates: bool, cost: Cost = OPERATIONS) -> float:
        """Return the spiking model's energy in picojoules, with state updates or without."""
        return cost.per_spike * self.synaptic_ops + self._shared(state_updates, cost)

    def dense(self, *, state_updates: bool, cost: Cost = OPERATIONS) -> float:
        """Return the dense twin's energy in picojoules, with state updates or without."""
        return cost.per_product * self.dense_macs + self._shared(state_updates, cost)

    def ratio(self, *, state_updates: bool, cost: Cost = OPERATIONS) -> float:
        """Return how many times less the spiking model needs; infinite if it needs nothing."""
        spiking = self.spiking(state_updates=state_updates, cost=cost)
        dense = self.dense(state_updates=state_updates, cost=cost)
        return dense / spiking if spiking else float("inf")

    @property
    def real_products(self) -> float:
        """Multiply-accumulates of real numbers, state updates left out."""
        return self.encoder_macs + self.head_macs + self.real_macs

    def _shared(self, state_updates: bool, cost: Cost) -> float:
        if cost.synapses_only:
            return 0.0
        states = cost.per_state_product * self.state_macs if state_updates else 0.0
        return cost.per_product * self.real_products + states


def estimate_energy(aux: Aux, *, examples: int) -> Energy:
    """Count the operations of a spiking model and of its dense twin.

    Args:
      aux: counts over `examples` examples; its sums are over their valid steps.
      examples: number of examples that aux counts.

    Returns:
      Operations per example; its methods give picojoules.

    Raises:
      ValueError: there is no example.
    """
    if examples < 1:
        raise ValueError(f"examples is {examples}, expected at least 1")
    synaptic_ops = dense_macs = 0.0
    for fields in aux["sites"].values():
        counts = {
            name: np.asarray(fields[name], np.float64)
            for name in ("spikes", "steps", "neurons", "fan_out")
        }
        synaptic_ops += np.sum(counts["spikes"] * counts["fan_out"])
        dense_macs += np.sum(counts["steps"] * counts["neurons"] * counts["fan_out"])
    macs = {name: float(value) / examples for name, value in aux["macs"].items()}
    encoder, head, state = (macs.pop(name, 0.0) for name in ("encoder", "head", "state"))
    return Energy(
        synaptic_ops=float(synaptic_ops / examples),
        dense_macs=float(dense_macs / examples),
        encoder_macs=encoder,
        head_macs=head,
        real_macs=float(sum(macs.values())),
        state_macs=state,
    )
