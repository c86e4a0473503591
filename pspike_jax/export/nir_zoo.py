"""Graphs of NIR that are models of the zoo."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax import models
from pspike_jax.export.cards import abstract_variables
from pspike_jax.export.nir_network import Plan
from pspike_jax.export.nir_writer import make_graph
from pspike_jax.functional.neurons import HardResetLIF
from pspike_jax.functional.neurons.lif import ALPHA_LIMITS
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.models.silif import NetworkConfig, SpikingNetwork
from pspike_jax.nn.norm import EPSILON

Found = tuple[SequenceModel, dict[str, Any]] | None


def as_written(graph: Any, dt: float) -> Found:
    """Return the model that `to_nir` has written; None of other graphs, and of changed ones.

    Args:
      graph: as `nir.read` gives it.
      dt: seconds of a step.
    """
    about = graph.metadata
    if not {"model", "variables"} <= about.keys():
        return None
    try:
        recipe = json.loads(about["model"])
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe["fields"].items()}
        model = models.create_model(recipe["name"], recipe["preset"], **fields)
        (source,) = (node for node in graph.nodes.values() if type(node).__name__ == "Input")
        like = abstract_variables(model, (1, *map(int, next(iter(source.input_type.values())))))
        variables = jax.tree.map(jnp.asarray, about["variables"])
        if jax.tree.map(_shape, variables) != jax.tree.map(_shape, dict(like)):
            return None
        how = {"noise": recipe["noise"], "metadata": recipe["metadata"]}
        again = make_graph(model, variables, dt=dt, **how)
    except (KeyError, TypeError, ValueError):  # the words of a stranger: the graph itself is read
        return None
    return (model, variables) if _same(graph, again) else None


def _shape(leaf):
    return tuple(leaf.shape), np.dtype(leaf.dtype).name


def _same(one: Any, other: Any) -> bool:
    """Tell whether two graphs have the same nodes, numbers and edges."""
    if one.nodes.keys() != other.nodes.keys() or {*one.edges} != {*other.edges}:
        return False
    for name, node in one.nodes.items():
        fields, expected = (_flat(x.to_dict()) for x in (node, other.nodes[name]))
        if fields.keys() != expected.keys():
            return False
        if not all(np.array_equal(fields[key], expected[key]) for key in fields):
            return False
    return True


def _flat(content: Mapping) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(dict(content))}


def as_lif_network(
    plan: Plan, params: Mapping[str, Mapping[str, jax.Array]], surrogate: str
) -> Found:
    """Return a network of `HardResetLIF` and a leaky readout; None where a graph is none.

    NIR's LIF holds keep v + (1 - keep) r I; with u = v / v_threshold its current enters whole and
    its threshold is 1: factors that go into the products.

    Args:
      plan: the graph.
      params: {node: {field: array}}.
      surrogate: name in `functional.SURROGATES`.
    """
    chain = [node for node in plan.nodes if node.kind not in ("Input", "Output")]
    kinds = ["Linear" if node.kind == "Affine" else node.kind for node in chain]
    names = [node.name for node in plan.nodes]
    straight = all(
        node.sources == (before,) for before, node in zip(names, plan.nodes[1:])
    )
    hidden = len(kinds) // 2 - 1
    if hidden < 1 or not straight or kinds != ["Linear", "LIF"] * hidden + ["Linear", "LI"]:
        return None
    products = [{k: np.float64(v) for k, v in params[node.name].items()} for node in chain[::2]]
    cells = [{k: np.float64(v) for k, v in params[node.name].items()} for node in chain[1::2]]
    keep = [np.exp(-plan.dt / cell["tau"]) for cell in cells]
    if not _fits(cells, keep):
        return None
    biased = any("bias" in product for product in products)
    config = NetworkConfig(
        num_outputs=chain[-1].features, pool="none", dropout=0.0, threshold=1.0,
        neuron=HardResetLIF(trained_leak=True, fires_at_zero=False),
        widths=tuple(node.features for node in chain[1:-1:2]),
        norm="batch" if biased else "none", surrogate=surrogate,
    )
    inputs, stats = [], []
    for product, cell, decay in zip(products, cells, keep):
        gain = cell["r"]  # the readout's 1 - keep is the model's own
        if "v_threshold" in cell:
            gain = gain * (1 - decay) / cell["v_threshold"]
        one, two = _product(product, gain, biased)
        inputs.append(one)
        stats.append(two)
    logits = [np.log(decay) - np.log1p(-decay) for decay in keep[:-1]]
    backbone = {
        f"layers_{i}": {"input": inputs[i], "neurons": {"neuron": {"leak_logit": logits[i]}}}
        for i in range(hidden)
    }
    head = {"input": inputs[-1], "alpha": keep[-1]}
    variables = {"params": {"backbone": backbone, "head": head}}
    if biased:
        layers = {f"layers_{i}": {"input": stats[i]} for i in range(hidden)}
        variables["batch_stats"] = {"backbone": layers, "head": {"input": stats[-1]}}
    as_float = lambda array: jnp.asarray(array, jnp.float32)
    return SpikingNetwork(config), jax.tree.map(as_float, variables)


def _fits(cells, keep) -> bool:
    """Tell whether neurons rest at and reset to 0, and the readout forgets as the zoo's does."""
    for cell, decay in zip(cells, keep):
        if any(np.any(cell[name]) for name in ("v_leak", "v_reset") if name in cell):
            return False
        if np.any(cell.get("v_threshold", 1.0) <= 0) or np.any((decay <= 0) | (decay >= 1)):
            return False
    low, high = ALPHA_LIMITS
    return bool(np.all((keep[-1] >= low) & (keep[-1] <= high)))


def _product(product, gain, biased):
    """Return parameters and statistics of a product; a bias stands in a batch norm."""
    found = {"kernel": (gain[:, None] * product["weight"]).T}
    if not biased:
        return found, {}
    zeros = np.zeros_like(gain)
    shift = gain * product["bias"] if "bias" in product else zeros
    found["norm"] = {"scale": zeros + 1, "bias": shift}
    return found, {"norm": {"mean": zeros, "var": zeros + 1 - EPSILON}}
