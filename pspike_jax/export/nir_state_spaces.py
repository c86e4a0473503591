"""P-SpikeSSM and its relatives as graphs of NIR: real discretised steps between thresholds.

A neuron that fires with probability clamp(drive) fires where the drive exceeds a number drawn from
[0, 1): a threshold. The complex state of a neuron is two real ones for each pole.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pspike_jax.export.nir_graph import DRAWN, EPSILON_OF, UNIFORM, Graph, batch_affine, numbers
from pspike_jax.export.nir_neurons import add_neurons
from pspike_jax.functional.neurons import LIF
from pspike_jax.models.pspikessm import PSpikeConfig
from pspike_jax.nn.norm import EPSILON

MIDDLE = 0.5  # stands for a threshold that is drawn


def add_state_spaces(
    graph: Graph, config: PSpikeConfig, params: Mapping, stats: Mapping, noise: float | None
) -> str:
    """Add a stack of blocks of P-SpikeSSM; return the node of the outputs of each step.

    Raises:
      ValueError: something of it has no exact form; with the reason.
    """
    check_blocks(graph, config, noise)
    source = _inputs(graph, config, params)
    running = stats.get("backbone", {})
    for i in range(config.n_layers):
        one = lambda tree: jax.tree.map(lambda array: np.asarray(array)[i], tree)
        block = one(params["backbone"]["blocks"]), one(running.get("blocks", {}))
        source = _block(graph, f"layers_{i}", source, config, *block, noise)
    if config.prenorm:
        source = _norm(
            graph, "norm", source, config, params["backbone"]["norm"], running.get("norm", {})
        )
    if config.head == "none":
        return source
    linear = params["head"]["linear"]
    return graph.affine("readout", source, numbers(linear["kernel"]).T, linear["bias"])


def check_blocks(graph: Graph, config: PSpikeConfig, noise: float | None) -> None:
    """Raise ValueError where NIR has no exact form of a model; with the reason."""
    if config.documents == 2:
        raise ValueError("documents=2 compares products of features, for which NIR has no node")
    if config.block != "paper":
        raise ValueError(f"block={config.block!r} is not written; block='paper' is")
    if config.bidirectional or not config.causal:
        raise ValueError("the model looks ahead; NIR runs forward")
    if config.parametrization != "diagonal":
        raise ValueError(
            f"parametrization={config.parametrization!r} is not written; 'diagonal' is"
        )
    if config.neuron not in ("probabilistic", "lif"):
        raise ValueError(f"neuron={config.neuron!r} is not written; 'probabilistic' and 'lif' are")
    if config.neuron == "probabilistic" and noise is None and not graph.metadata:
        raise ValueError(
            "the model draws its spikes at random, for which NIR has no node: noise= fixes what is "
            "drawn, metadata=True writes into the metadata of thresholds that they are drawn"
        )


def _inputs(graph, config, params) -> str:
    if config.encoder == "none":
        shape = np.array([config.d_model])
        return graph.add("input", graph.nir.Input(input_type=shape))
    linear = params["encoder"]["linear"]
    shape = np.array([np.shape(linear["kernel"])[0]])
    source = graph.add("input", graph.nir.Input(input_type=shape))
    return graph.affine("encoder", source, numbers(linear["kernel"]).T, linear["bias"])


def _block(graph, name, source, config, params, stats, noise) -> str:
    """Add one block: norm, spikes, state space, spikes, product across neurons, sum."""
    drive, features = source, config.d_model
    if config.prenorm:
        parts = params["norm"], stats.get("norm", {})
        drive = _norm(graph, f"{name}_norm", drive, config, *parts)
    spikes = _site(graph, f"{name}_input", drive, config, params["input"], noise)
    state = graph.state(f"{name}_state", spikes, _real_system(config, params["ssm"]))
    drive = graph.affine(f"{name}_ssm", state, _real_readout(config, params["ssm"]))
    y = _site(graph, f"{name}_output", drive, config, params["output"], noise)
    if config.mixer == "dense":
        linear = params["mixer"]["linear"]
        y = graph.affine(f"{name}_mixer", y, numbers(linear["kernel"]).T, linear["bias"])
    if config.activation != "identity":
        y = graph.operation(f"{name}_activation", y, features, config.activation)
    x = graph.sum(f"{name}_sum", features, y, *([source] if config.residual else []))
    if config.prenorm:
        return x
    parts = params["fuse"]["norm"], stats.get("fuse", {}).get("norm", {})
    return _norm(graph, f"{name}_norm", x, config, *parts)


def _norm(graph, name, source, config, params, stats) -> str:
    if config.norm == "batch":
        gain, shift = batch_affine(params["batch"], stats["batch"], EPSILON)
    else:
        extra = {EPSILON_OF: EPSILON}
        kind = "layer_norm"
        source = graph.operation(f"{name}_layer", source, config.d_model, kind, **extra)
        gain, shift = params["layer"]["scale"], params["layer"]["bias"]
    return graph.scaled(name, source, gain, shift)


def _site(graph, name, drive, config, params, noise) -> str:
    """Add what makes spikes of a drive: an own gain and shift, then neurons."""
    current = graph.scaled(f"{name}_drive", drive, params["scale"], params["shift"])
    if config.neuron == "lif":
        # As `nn.sites` builds it.
        neuron = LIF((0.1, 0.9), threshold=0.5)
        return add_neurons(graph, name, current, neuron, params, config.d_model)
    threshold = np.full(config.d_model, MIDDLE if noise is None else noise)
    metadata = {DRAWN: UNIFORM} if noise is None else {}
    node = graph.nir.Threshold(threshold=threshold, metadata=metadata)
    return graph.add(f"{name}_spikes", node, current)


def _real_system(config: PSpikeConfig, params: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Return A (2 H P, 2 H P) and B (2 H P, H) of P poles of a neuron, by neuron and pole."""
    mixer = config.make_mixer(False, parent=None)
    found = mixer.apply({"params": params}, method="discretized")
    decay, gain = (np.asarray(array, np.complex128) for array in found)
    neurons, poles = decay.shape
    A, B = np.zeros((neurons * poles,) * 2 + (2, 2)), np.zeros((neurons * poles, neurons, 2))
    each = np.arange(neurons * poles)
    flat = decay.reshape(-1)
    turn = [[flat.real, -flat.imag], [flat.imag, flat.real]]
    A[each, each] = np.moveaxis(np.array(turn), -1, 0)
    gain = np.broadcast_to(gain, decay.shape).reshape(-1)
    B[each, each // poles] = np.stack([gain.real, gain.imag], -1)
    size = 2 * neurons * poles
    return np.moveaxis(A, 2, 1).reshape(size, size), np.moveaxis(B, 2, 1).reshape(size, neurons)


def _real_readout(config: PSpikeConfig, params: Mapping) -> np.ndarray:
    """Return C (H, 2 H P): 2 Re(c x) of each neuron's poles."""
    mixer = config.make_mixer(False, parent=None)
    c: Any = mixer.apply({"params": params}, method="continuous")[2]
    c = 2 * np.asarray(c, np.complex128)[0]
    neurons, poles = c.shape
    matrix = np.zeros((neurons, neurons, poles, 2))
    each = np.arange(neurons)
    matrix[each, each] = np.stack([c.real, -c.imag], -1)
    return matrix.reshape(neurons, -1)
