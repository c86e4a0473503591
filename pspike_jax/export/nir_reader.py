"""Graphs of NIR, of this package and of other tools, as models.

Edges back must go through a Delay: of a circle without one NIR does not say where a step passes.
"""

import os
from typing import Any

import jax.numpy as jnp
import numpy as np

from pspike_jax.export.nir_graph import DRAWN, EPSILON_OF, OPERATION
from pspike_jax.export.nir_network import (
    OPERATIONS,
    GraphConfig,
    GraphNetwork,
    Node,
    Plan,
)
from pspike_jax.export.nir_zoo import as_lif_network, as_written
from pspike_jax.models.sequence import SequenceModel

# {node: parameters that are read}.
NODES = {
    "Input": (),
    "Output": (),
    "Linear": ("weight",),
    "Affine": ("weight", "bias"),
    "Scale": ("scale",),
    "Threshold": ("threshold",),
    "Delay": (),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "IF": ("r", "v_threshold", "v_reset"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
}


def from_nir(
    path: str | os.PathLike,
    *,
    dt: float | None = None,
    surrogate: str = "boxcar",
    as_graph: bool = False,
) -> tuple[SequenceModel, dict[str, Any]]:
    """Read a graph of linear maps and leaky, LIF, integrating and current-based neurons.

    A file of `to_nir` gives back the model and the variables that it was written from, bit for
    bit, unless its numbers were changed since. A chain of products and LIF neurons that are at rest
    and reset to 0, with a leaky readout of 5 to 25 steps, of any tool, becomes a network of the zoo
    with `HardResetLIF`. All else becomes a `GraphNetwork`, which runs the graph node by node. All
    three are called, streamed and trained alike; those not of `to_nir` have outputs at every step,
    which `model.replace(pool="mean")` changes.

    Args:
      path: of a .nir file, of this package or another tool.
      dt: seconds of a step; None where the graph's metadata have it.
      surrogate: what stands for the derivative of a spike, a name in `functional.SURROGATES`.
      as_graph: run the graph itself, where a model of the zoo would fit, too.

    Returns:
      model: `model.apply(variables, inputs (B, L, F))` gives (outputs, aux).
      variables: its parameters, and batch statistics where it has any.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no file of NIR, a node is of another kind, there is a circle without a
        Delay, a delay is no whole number of steps, several inputs or outputs, or no dt.
    """
    import nir

    if not os.path.isfile(path):
        raise FileNotFoundError(f"{os.fspath(path)!r} is no file")
    try:
        graph = nir.read(os.fspath(path))
    except (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        said = str(error).splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"{os.fspath(path)!r} is no file of NIR: {said[0]}") from error
    dt = dt if dt is not None else graph.metadata.get("dt")
    if dt is None:
        raise ValueError(f"{path} does not say how long a step is: give dt in seconds")
    if not as_graph and (found := as_written(graph, float(dt))):
        return found
    plan = make_plan(graph, float(dt), path)
    params = {
        node.name: {
            field: jnp.asarray(np.asarray(getattr(graph.nodes[node.name], field)), jnp.float32)
            for field, _ in node.shapes
        }
        for node in plan.nodes if node.shapes
    }
    if not as_graph and (found := as_lif_network(plan, params, surrogate)):
        return found
    last = next(node for node in plan.nodes if node.name == plan.output)
    config = GraphConfig(plan=plan, num_outputs=last.features, surrogate=surrogate)
    return GraphNetwork(config), {"params": {"backbone": {"nodes": params}}}


def make_plan(graph: Any, dt: float, path: str | os.PathLike) -> Plan:
    """Return a graph without its numbers, its nodes in an order of computation.

    Raises:
      ValueError: as `from_nir` says.
    """
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    unknown = [f"{name} ({kind})" for name, kind in kinds.items() if kind not in NODES]
    if unknown:
        raise ValueError(f"{path} has nodes that are not read here: {', '.join(unknown)}")
    for kind in ("Input", "Output"):
        if list(kinds.values()).count(kind) != 1:
            raise ValueError(f"{path} has {list(kinds.values()).count(kind)} {kind} nodes, not 1")
    for name, node in graph.nodes.items():
        if DRAWN in node.metadata:
            raise ValueError(
                f"{path}: the threshold {name} is drawn at every step, which a graph does not do "
                "here; the model that it was written from can"
            )
        asked = node.metadata.get(OPERATION, "")
        if asked and asked not in OPERATIONS:
            raise ValueError(f"{path}: {name} asks for {asked!r}, expected one of {[*OPERATIONS]}")
    delays = _delays(graph, kinds, dt, path)
    nodes = []
    for name in _order(kinds, graph.edges, path):
        node = graph.nodes[name]
        shapes = [(field, np.shape(getattr(node, field))) for field in NODES[kinds[name]]]
        nodes.append(Node(
            name, kinds[name], int(np.prod(_size(node))),
            tuple(a for a, b in graph.edges if b == name), tuple(shapes), delays.get(name, 0),
            node.metadata.get(OPERATION, ""), float(node.metadata.get(EPSILON_OF, 0.0)),
        ))
    (output,) = (name for name, kind in kinds.items() if kind == "Output")
    return Plan(tuple(nodes), output, dt)


def _size(node: Any) -> Any:
    found = node.output_type if node.output_type is not None else node.input_type
    return next(iter(found.values()))


def _delays(graph, kinds, dt, path) -> dict[str, int]:
    """Return the steps of each Delay."""
    found = {}
    for name, kind in kinds.items():
        if kind != "Delay":
            continue
        steps = np.unique(np.asarray(graph.nodes[name].delay, np.float64) / dt)
        if len(steps) != 1 or abs(steps[0] - round(steps[0])) > 1e-6 or round(steps[0]) < 1:
            raise ValueError(
                f"{path}: the delay {name} is {steps.tolist()} steps of {dt} s, expected one whole "
                "number for all neurons"
            )
        found[name] = round(steps[0])
    return found


def _order(kinds, edges, path) -> list[str]:
    """Return an order in which every node but a Delay stands behind its sources."""
    waits = {
        name: {a for a, b in edges if b == name and kinds[a] != "Delay"} for name in kinds
    }
    order: list[str] = []
    while len(order) < len(kinds):
        ready = [name for name in kinds if name not in order and waits[name] <= set(order)]
        if not ready:
            circle = sorted(set(kinds) - set(order))
            raise ValueError(
                f"{path}: among {', '.join(circle)} is a circle without a Delay, and NIR does not "
                "say where a step passes"
            )
        order += ready
    return order
