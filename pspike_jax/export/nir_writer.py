"""Networks of neurons that reset as graphs of the Neuromorphic Intermediate Representation.

NIR's own LIF is set to a potential by a spike. A neuron from which a spike subtracts is written as
what it is: a leaky integrator (LI), a threshold, and an edge back through a Delay of one step. A
Delay stands on every edge back, so that a graph without its Delays has no circle and one order of
computation. An LI of a step dt computes v = d v + (1 - d) (v_leak + r I), d = exp(-dt / tau).
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from pspike_jax.functional import neurons
from pspike_jax.functional.neurons.lif import ALPHA_LIMITS
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.models.silif import SpikingNetwork

DT = 1e-3  # seconds of a step, written into the graph; decays do not depend on it
EPSILON = 1e-5  # of batch norms


def to_nir(
    model: SequenceModel, variables: Mapping[str, Any], path: str | os.PathLike, *, dt: float = DT
) -> None:
    """Write a network of LIF or adaptive LIF neurons and its leaky readout.

    The graph's output are the potentials of the readout at every step.

    Args:
      model: a network of neurons that reset: "lif", "rlif", "adlif", "cadlif", "radlif".
      variables: its parameters and batch statistics.
      path: of the .nir file.
      dt: seconds of a step; the graph's metadata have it.

    Raises:
      ValueError: something of the model has no exact form in NIR; with the reason.
    """
    import nir

    check(model)
    config, params = model.config, variables["params"]
    statistics = variables.get("batch_stats", {})
    graph = _Graph(nir, dt)
    backbone = params["backbone"]
    features = np.shape(backbone["layers_0"]["input"]["kernel"])[0]
    source = graph.add("input", nir.Input(input_type=np.array([features])))
    for i in range(len(config.widths)):
        name = f"layers_{i}"
        stats = statistics.get("backbone", {}).get(name, {}).get("input", {})
        layer = backbone[name]
        current = graph.affine(f"{name}_product", source, layer["input"], stats, config.norm)
        source = _neurons(graph, name, current, config, layer["neurons"])
    stats = statistics.get("head", {}).get("input", {})
    current = graph.affine("readout_product", source, params["head"]["input"], stats, config.norm)
    alpha = np.clip(_numbers(params["head"]["alpha"]), *ALPHA_LIMITS)
    source = graph.leaky("readout", current, alpha)
    output = graph.add("output", nir.Output(output_type=np.array([config.num_outputs])))
    graph.edges.append((source, output))
    pool = {"pool": config.pool, "dt": dt, "written_by": "pspike_jax"}
    nir.write(os.fspath(path), nir.NIRGraph(graph.nodes, graph.edges, metadata=pool))


def check(model: SequenceModel) -> None:
    """Raise ValueError where NIR has no exact form of a model; with the reason."""
    kind = type(model).__name__
    if model.stochastic and not isinstance(model, SpikingNetwork):
        raise ValueError(f"{kind} draws its spikes at random, for which NIR has no node")
    if not isinstance(model, SpikingNetwork):
        raise ValueError(f"{kind} is not a network of neurons that reset, the kind written here")
    config = model.config
    neuron = config.neuron
    if not isinstance(neuron, (neurons.LIF, neurons.AdLIF)):
        raise ValueError(f"{type(neuron).__name__} has no equation among NIR's neurons")
    if config.bidirectional:
        raise ValueError("bidirectional=True reads from the end to the start; NIR runs forward")
    if config.random_state:
        raise ValueError("random_state=True draws initial states; NIR starts at rest")
    if config.norm == "layer":
        raise ValueError("norm='layer' divides by what each step measures; NIR has no such node")
    if config.vocab_size is not None:
        raise ValueError("vocab_size is given: NIR's inputs are numbers, not tokens")


def _neurons(graph: "_Graph", name: str, current: str, config: Any, layer: Mapping) -> str:
    """Add a layer of neurons; return the node of its spikes."""
    neuron, nir = config.neuron, graph.nir
    coefficients = [_numbers(c) for c in neuron.coefficients(layer["neuron"])]
    alpha = coefficients[0]
    membrane = graph.leaky(f"{name}_membrane", current, alpha)
    threshold = np.full_like(alpha, config.threshold)
    if getattr(neuron, "trained_threshold", False):
        threshold = coefficients[1]
    spikes = graph.add(f"{name}_spikes", nir.Threshold(threshold=threshold), membrane)
    # alpha (u - s) + (1 - alpha) I is alpha u + (1 - alpha) (I - alpha / (1 - alpha) s).
    graph.back(f"{name}_reset", spikes, membrane, -alpha / (1 - alpha))
    if neuron.recurrent:
        matrix = _numbers(layer["recurrent"]) * (1 - np.eye(len(alpha)))
        graph.back(f"{name}_recurrent", spikes, membrane, matrix.T)
    if isinstance(neuron, neurons.AdLIF):
        _, beta, a, b = coefficients
        adaptation = graph.leaky(f"{name}_adaptation", None, beta)
        graph.back(f"{name}_coupling", membrane, adaptation, a / (1 - beta))
        graph.back(f"{name}_jump", spikes, adaptation, b / (1 - beta))
        minus = graph.add(
            f"{name}_minus", nir.Scale(scale=np.full_like(alpha, -1.0)), adaptation
        )
        graph.edges.append((minus, membrane))
    return spikes


class _Graph:
    """Nodes and edges while they are added.

    Attributes:
      nir: the module.
      dt: seconds of a step.
      nodes, edges: what `nir.NIRGraph` takes.
    """

    def __init__(self, nir: Any, dt: float):
        self.nir, self.dt = nir, dt
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def add(self, name: str, node: Any, source: str | None = None) -> str:
        """Add a node behind another; return its name."""
        self.nodes[name] = node
        if source is not None:
            self.edges.append((source, name))
        return name

    def affine(self, name: str, source: str, product: Mapping, stats: Mapping, norm: str) -> str:
        """Add a product with the batch norm behind it folded into it."""
        weight = _numbers(product["kernel"]).T
        if norm == "none":
            return self.add(name, self.nir.Linear(weight=weight), source)
        affine, running = product["norm"], stats["norm"]
        gain = _numbers(affine["scale"]) / np.sqrt(_numbers(running["var"]) + EPSILON)
        bias = _numbers(affine["bias"]) - _numbers(running["mean"]) * gain
        return self.add(name, self.nir.Affine(weight=gain[:, None] * weight, bias=bias), source)

    def leaky(self, name: str, source: str | None, decay: np.ndarray) -> str:
        """Add leaky integrators v = decay v + (1 - decay) I."""
        tau = -self.dt / np.log(decay)
        ones, zeros = np.ones_like(tau), np.zeros_like(tau)
        return self.add(name, self.nir.LI(tau=tau, r=ones, v_leak=zeros), source)

    def back(self, name: str, source: str, target: str, weight: np.ndarray) -> None:
        """Add an edge back: a step of delay, and a factor for each neuron, or a matrix."""
        delay = self.nir.Delay(delay=np.full(len(weight), self.dt))
        delayed = self.add(f"{name}_delay", delay, source)
        kind = self.nir.Linear(weight=weight) if weight.ndim == 2 else self.nir.Scale(scale=weight)
        self.edges.append((self.add(name, kind, delayed), target))


def _numbers(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)
