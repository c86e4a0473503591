"""Building graphs of the Neuromorphic Intermediate Representation, in numbers of float64.

A step of dt holds its input, so that an LI computes v = d v + (1 - d) (v_leak + r I) with
d = exp(-dt / tau). Edges that meet in a node add up. A Delay of a step stands on every edge back,
so that a graph without its Delays has no circle and one order of computation.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

# What NIR has no node for is a Scale by 1 whose metadata name the operation.
OPERATION, EPSILON_OF = "operation", "epsilon"
# The threshold of a node with this in its metadata is drawn anew at every step.
DRAWN = "drawn_threshold"
UNIFORM = "uniform in [0, 1), of each neuron, example and step"


class Graph:
    """Nodes and edges while they are added.

    Attributes:
      nir: the module.
      dt: seconds of a step.
      metadata: whether what NIR has no word for may stand in metadata of nodes.
      nodes, edges: what `nir.NIRGraph` takes.
    """

    def __init__(self, nir: Any, dt: float, metadata: bool):
        self.nir, self.dt, self.metadata = nir, dt, metadata
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def add(self, name: str, node: Any, *sources: str) -> str:
        """Add a node behind others; return its name."""
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def affine(self, name: str, source: str, weight: Any, bias: Any = None) -> str:
        """Add a product with a matrix (outputs, inputs), and a bias where there is one."""
        weight = numbers(weight)
        if bias is None:
            return self.add(name, self.nir.Linear(weight=weight), source)
        return self.add(name, self.nir.Affine(weight=weight, bias=numbers(bias)), source)

    def scaled(self, name: str, source: str, gain: Any, shift: Any) -> str:
        """Add a gain and a shift for each feature."""
        gain, shift = numbers(gain), numbers(shift)
        if not shift.any():
            return self.add(name, self.nir.Scale(scale=gain), source)
        return self.affine(name, source, np.diag(gain), shift)

    def sum(self, name: str, features: int, *sources: str) -> str:
        """Add a node where other nodes meet."""
        return self.add(name, self.nir.Scale(scale=np.ones(features)), *sources)

    def leaky(self, name: str, source: str | None, decay: np.ndarray) -> str:
        """Add leaky integrators v = decay v + (1 - decay) I."""
        tau = -self.dt / np.log(decay)
        node = self.nir.LI(tau=tau, r=np.ones_like(tau), v_leak=np.zeros_like(tau))
        return self.add(name, node, *[source] if source else [])

    def back(self, name: str, source: str, target: str, weight: Any) -> None:
        """Add an edge back: a step of delay, and a factor for each neuron, or a matrix."""
        weight = numbers(weight)
        delay = self.nir.Delay(delay=np.full(weight.shape[-1], self.dt))
        delayed = self.add(f"{name}_delay", delay, source)
        kind = self.nir.Linear(weight=weight) if weight.ndim == 2 else self.nir.Scale(scale=weight)
        self.edges.append((self.add(name, kind, delayed), target))

    def state(self, name: str, source: str, system: tuple[Any, Any]) -> str:
        """Add x_t = A x_{t-1} + B u_t, u the source; return the node of x."""
        A, B = map(numbers, system)
        current = self.affine(f"{name}_input", source, B)
        x = self.sum(name, len(A), current)
        self.back(f"{name}_transition", x, x, A)
        return x

    def operation(self, name: str, source: str, features: int, kind: str, **numbers: float) -> str:
        """Add what NIR has no node for.

        Raises:
          ValueError: metadata may not say it.
        """
        if not self.metadata:
            raise ValueError(
                f"NIR has no node for {kind!r}; metadata=True writes it into the metadata of a node"
            )
        node = self.nir.Scale(scale=np.ones(features), metadata={OPERATION: kind, **numbers})
        return self.add(name, node, source)


def numbers(array: Any) -> np.ndarray:
    """Return an array as float64."""
    return np.asarray(array, np.float64)


def batch_affine(affine: Mapping, running: Mapping, epsilon: float) -> tuple[Any, Any]:
    """Return the gain and the shift of a batch norm by its running statistics."""
    gain = numbers(affine["scale"]) / np.sqrt(numbers(running["var"]) + epsilon)
    return gain, numbers(affine["bias"]) - numbers(running["mean"]) * gain
