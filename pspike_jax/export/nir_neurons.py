"""Neurons that reset, and networks of them, as graphs of NIR.

NIR's own LIF is set to a potential by a spike. A neuron from which a spike subtracts is written as
what it is: leaky integrators (LI), a threshold, and an edge back. A neuron of another kind becomes
its real discretised step, x_t = A x_{t-1} + B I_t + R s_{t-1}, if it is one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.export.nir_graph import Graph, batch_affine, numbers
from pspike_jax.functional import neurons
from pspike_jax.functional.neurons.adlif import Adaptive
from pspike_jax.functional.neurons.lif import ALPHA_LIMITS
from pspike_jax.models.silif import NetworkConfig
from pspike_jax.nn.norm import EPSILON

# Of coefficients found in float32 from a few sums; a product of two variables is far above.
AFFINE_TOLERANCE = 1e-4


def add_network(graph: Graph, config: NetworkConfig, params: Mapping, stats: Mapping) -> str:
    """Add a network of neurons that reset; return the node of its potentials.

    Raises:
      ValueError: something of it has no exact form; with the reason.
    """
    check_network(config)
    backbone, running = params["backbone"], stats.get("backbone", {})
    features = np.shape(backbone["layers_0"]["input"]["kernel"])[0]
    source = graph.add("input", graph.nir.Input(input_type=np.array([features])))
    for i in range(len(config.widths)):
        name = f"layers_{i}"
        layer = backbone[name]
        current = add_product(
            graph, f"{name}_product", source, layer["input"],
            running.get(name, {}).get("input", {}), config.norm,
        )
        cells = layer.get("neurons", {})
        neuron = dataclasses.replace(config.neuron, threshold=config.threshold)
        source = add_neurons(graph, name, current, neuron, cells, config.widths[i])
    stats = stats.get("head", {}).get("input", {})
    head = params["head"]
    current = add_product(graph, "readout_product", source, head["input"], stats, config.norm)
    return graph.leaky("readout", current, np.clip(numbers(head["alpha"]), *ALPHA_LIMITS))


def check_network(config: NetworkConfig) -> None:
    """Raise ValueError where NIR has no exact form of a network; with the reason."""
    if config.bidirectional:
        raise ValueError("bidirectional=True reads from the end to the start; NIR runs forward")
    if config.delays:
        raise ValueError(f"delays={config.delays} is not written; a graph's delays are of edges")
    if config.random_state:
        raise ValueError("random_state=True draws initial states; NIR starts at rest")
    if config.norm == "layer":
        raise ValueError("norm='layer' divides by what each step measures; NIR has no such node")


def add_product(
    graph: Graph, name: str, source: str, product: Mapping, stats: Mapping, norm: str
) -> str:
    """Add a product with the batch norm behind it folded into it."""
    weight = numbers(product["kernel"]).T
    if norm == "none":
        return graph.affine(name, source, weight)
    gain, bias = batch_affine(product["norm"], stats["norm"], EPSILON)
    return graph.affine(name, source, gain[:, None] * weight, bias)


def add_neurons(
    graph: Graph,
    name: str,
    current: str,
    neuron: neurons.Neuron,
    params: Mapping,
    features: int,
) -> str:
    """Add a layer of neurons; return the node of its spikes.

    Args:
      graph: where to.
      name: of the layer.
      current: the node that drives it.
      neuron: the kind, its threshold among its settings.
      params: {"neuron": its parameters, "recurrent": a matrix}, as a site has them.
      features: H.
    """
    if neuron.fires_at_zero:
        raise ValueError(
            f"{type(neuron).__name__} fires at its threshold, NIR's neurons above it alone"
        )
    coefficients = [numbers_or_complex(c) for c in neuron.coefficients(params.get("neuron", {}))]
    if isinstance(neuron, neurons.HardResetLIF):
        found = _hard_reset(graph, name, current, coefficients, features)
    elif isinstance(neuron, (neurons.LIF, Adaptive)):
        found = _leaky(graph, name, current, neuron, coefficients)
    else:
        found = _real_step(graph, name, current, neuron, params, features)
    if neuron.recurrent:
        matrix = numbers(params["recurrent"]) * (1 - np.eye(features))
        graph.back(f"{name}_recurrent", found[0], found[1], matrix.T)
    return found[0]


def _leaky(graph, name, current, neuron, coefficients) -> tuple[str, str]:
    """Add LIF or adaptive neurons; return the nodes of their spikes and of what drives them."""
    nir, alpha = graph.nir, coefficients[0]
    membrane = graph.leaky(f"{name}_membrane", current, alpha)
    threshold = np.full_like(alpha, neuron.threshold)
    if getattr(neuron, "trained_threshold", False):
        threshold = coefficients[1]
    spikes = graph.add(f"{name}_spikes", nir.Threshold(threshold=threshold), membrane)
    # alpha (u - s) + (1 - alpha) I is alpha u + (1 - alpha) (I - alpha / (1 - alpha) s).
    graph.back(f"{name}_reset", spikes, membrane, -alpha / (1 - alpha))
    if isinstance(neuron, Adaptive):
        _, beta, a, b = coefficients
        adaptation = graph.leaky(f"{name}_adaptation", None, beta)
        graph.back(f"{name}_coupling", membrane, adaptation, a / (1 - beta))
        graph.back(f"{name}_jump", spikes, adaptation, b / (1 - beta))
        minus = nir.Scale(scale=np.full_like(alpha, -1.0))
        graph.edges.append((graph.add(f"{name}_minus", minus, adaptation), membrane))
    return spikes, membrane


def _hard_reset(graph, name, current, coefficients, features) -> tuple[str, str]:
    """Add NIR's LIF: u = leak (1 - s) u + I is keep v + (1 - keep) r I with r = 1 / (1 - keep)."""
    leak, threshold = (np.broadcast_to(c, (features,)).copy() for c in coefficients)
    zeros = np.zeros(features)
    node = graph.nir.LIF(
        tau=-graph.dt / np.log(leak), r=1 / (1 - leak), v_leak=zeros, v_threshold=threshold,
        v_reset=zeros,
    )
    spikes = graph.add(f"{name}_spikes", node, current)
    return spikes, spikes


def _real_step(graph, name, current, neuron, params, features) -> tuple[str, str]:
    """Add neurons as an affine recurrence of real variables and a threshold."""
    A, B, R, C, threshold = real_step(neuron, params.get("neuron", {}), features)
    driven = graph.sum(f"{name}_current", features, current)
    state = graph.state(f"{name}_state", driven, (A, B))
    membrane = graph.affine(f"{name}_membrane", state, C)
    spikes = graph.add(
        f"{name}_spikes", graph.nir.Threshold(threshold=threshold), membrane
    )
    graph.back(f"{name}_reset", spikes, state, R)
    return spikes, driven


def real_step(neuron: neurons.Neuron, params: Any, features: int) -> tuple[np.ndarray, ...]:
    """Return A, B, R, C and V of x_t = A x + B I + R s, firing where C x_t > V.

    Args:
      neuron: the kind.
      params: its parameters.
      features: H.

    Returns:
      A (K H, K H), B, R (K H, H), C (H, K H), V (H,) for K real variables of a neuron: found by
      asking the neuron for the step of each unit vector.

    Raises:
      ValueError: the step is not affine.
    """
    coefficients = tuple(c[None] for c in neuron.coefficients(params))
    flat, restore = _real_parts(neuron.zero_membrane(1, features))
    size = len(flat)

    def step(x, spikes, current):
        after = neuron.update(coefficients, restore(x), spikes[None], spikes[None], current[None])
        return _real_parts(after)[0]

    def drive(x):
        return neuron.drive(coefficients, restore(x))[0]

    zero, x0 = jnp.zeros(features), jnp.zeros(size)
    at_rest, low = step(x0, zero, zero), drive(x0)
    columns = jax.vmap(lambda one: step(one, zero, zero) - at_rest)(jnp.eye(size))
    spike = jax.vmap(lambda one: step(x0, one, zero) - at_rest)(jnp.eye(features))
    into = jax.vmap(lambda one: step(x0, zero, one) - at_rest)(jnp.eye(features))
    read = jax.vmap(lambda one: drive(one) - low)(jnp.eye(size))
    rng = np.random.default_rng(0)
    x, current = (jnp.asarray(rng.normal(size=n), jnp.float32) for n in (size, features))
    spikes = jnp.asarray(rng.integers(0, 2, features), jnp.float32)
    found = step(x, spikes, current), drive(x)
    made = x @ columns + spikes @ spike + current @ into + at_rest, x @ read + low
    fits = all(np.allclose(a, b, rtol=1e-4, atol=AFFINE_TOLERANCE) for a, b in zip(found, made))
    if not fits or np.any(np.asarray(at_rest)):
        raise ValueError(
            f"a step of {type(neuron).__name__} multiplies its variables with each other: NIR has "
            "no node for it"
        )
    return (*(numbers(array).T for array in (columns, into, spike, read)), -numbers(low))


def _real_parts(membrane):
    """Return a membrane of one example as real numbers (K H,), and the way back."""
    leaves, structure = jax.tree.flatten(membrane)
    kinds = [(leaf.shape[-1], jnp.iscomplexobj(leaf)) for leaf in leaves]
    parts = []
    for leaf, (_, is_complex) in zip(leaves, kinds):
        parts += [leaf[0].real, leaf[0].imag] if is_complex else [leaf[0]]

    def restore(x):
        pieces, at = [], 0
        for features, is_complex in kinds:
            real = x[at : at + features][None]
            at += features
            if is_complex:
                real = jax.lax.complex(real, x[at : at + features][None])
                at += features
            pieces.append(real)
        return jax.tree.unflatten(structure, pieces)

    return jnp.concatenate(parts), restore


def numbers_or_complex(array: Any) -> np.ndarray:
    """Return an array in double precision."""
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
