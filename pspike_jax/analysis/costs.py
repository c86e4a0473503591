"""Prices of operations under named assumptions, and the firing rate at which spikes stop paying.

A price is in picojoules, of 32-bit floating-point operations at 45 nm and 0.9 V (Horowitz, ISSCC
2014): an addition 0.9, a multiplication 3.7, reading 64 bits from a memory of 8 kB 10, of 32 kB 20,
of 1 MB 100. A word of 32 bits costs half of that, written or read. What moves:

  a multiply-accumulate    2 words, both factors; its sum stays in a register
  an addition by a spike   3 words, the weight, and the sum read and written: spikes come singly
  a product of a state     8 words for each 6: pole, readout and state read, the state written,
                           two numbers each, in 4 products that decay a pair and 2 that read it

Dense layers that use a weight for many examples at once would move fewer. What a neuron costs
beside its synapses, one comparison a step, counts towards the crossover alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Cost(NamedTuple):
    """What operations cost in picojoules.

    Attributes:
      accumulate: an addition.
      multiply: a multiplication and an addition.
      word: 32 bits read from or written to memory.
      synapses_only: encoder, head, other products of real numbers and states are free.
    """

    accumulate: float = 0.9
    multiply: float = 4.6
    word: float = 0.0
    synapses_only: bool = False

    @property
    def per_spike(self) -> float:
        """Picojoules of one addition that a spike triggers."""
        return self.accumulate + 3 * self.word

    @property
    def per_product(self) -> float:
        """Picojoules of one multiply-accumulate."""
        return self.multiply + 2 * self.word

    @property
    def per_state_product(self) -> float:
        """Picojoules of one multiply-accumulate of a linear state."""
        return self.multiply + self.word * 8 / 6


OPERATIONS = Cost()
COSTS: dict[str, Cost] = {
    "operations": OPERATIONS,
    "synaptic operations": Cost(synapses_only=True),
    "memory of 8 kB": Cost(word=5.0),
    "memory of 32 kB": Cost(word=10.0),
    "memory of 1 MB": Cost(word=50.0),
}


def crossover_rates(sites: Mapping[str, Mapping[str, Any]], cost: Cost) -> dict[str, np.ndarray]:
    """Return the firing rate above which passing real numbers would be cheaper, for each layer.

    At this rate additions by spikes, and one comparison a neuron and step, cost as much as the
    multiply-accumulates of the dense twin: r = (product fan_out - comparison) / (spike fan_out).

    Args:
      sites: of `aux`, with "fan_out" (layers,).
      cost: prices.

    Returns:
      {site: (layers,)}; spikes always pay where a rate is above 1, and never where it is 0.
    """
    rates = {}
    for site, fields in sites.items():
        fan_out = np.asarray(fields["fan_out"], np.float64)
        # What no synapse reads saves nothing.
        saved = np.maximum(cost.per_product * fan_out - cost.accumulate, 0.0)
        rates[site] = saved / np.maximum(cost.per_spike * fan_out, 1e-300)
    return rates


def neurobench(operations: Any, sites: Mapping[str, Mapping[str, Any]], params: Any) -> dict:
    """Return what NeuroBench measures (2.x, and by its names), where it is defined here.

    Args:
      operations: `energy.Energy`, per example.
      sites: of `aux`, sums over all examples.
      params: the model's parameters.

    Returns:
      "Footprint", bytes of all parameters; "ConnectionSparsity", the share of parameters of two
      axes and more that are 0; "ActivationSparsity", the share of neurons and steps without a
      spike; and "SynapticOperations" of an example: products of real numbers, additions by spikes,
      and what the dense twin computes. States are no synapses: their updates are in none of these.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    weights = [leaf for leaf in leaves if leaf.ndim > 1]
    zeros = sum(int(np.sum(leaf == 0)) for leaf in weights)
    total = lambda *names: sum(
        float(np.sum(np.prod([np.asarray(fields[name], np.float64) for name in names], axis=0)))
        for fields in sites.values()
    )
    return {
        "Footprint": sum(leaf.nbytes for leaf in leaves),
        "ConnectionSparsity": zeros / max(sum(leaf.size for leaf in weights), 1),
        "ActivationSparsity": 1 - total("spikes") / total("steps", "neurons"),
        "SynapticOperations": {
            "Effective_MACs": operations.real_products,
            "Effective_ACs": operations.synaptic_ops,
            "Dense": operations.dense_macs + operations.real_products,
        },
    }
