"""Graphs of the Neuromorphic Intermediate Representation as functions that JAX can differentiate.

NIR's equations are in continuous time. Here a step of dt holds its input: a leaky variable becomes
v = d v + (1 - d) (v_leak + r I) with d = exp(-dt / tau), and neurons with two take the current
first. A spike resets in the step in which it happens. Edges back must go through a Delay: of a
circle without one NIR does not say where a step passes.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.functional.neurons import fire
from pspike_jax.functional.surrogates import SURROGATES

Arrays = dict[str, jax.Array]
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
STATES = {"Delay": 1, "LI": 1, "LIF": 1, "IF": 1, "CubaLI": 2, "CubaLIF": 2}


def from_nir(
    path: str | os.PathLike, *, dt: float | None = None, surrogate: str = "boxcar"
) -> tuple[Callable[[dict[str, Arrays], jax.Array], jax.Array], dict[str, Arrays]]:
    """Read a graph of linear maps and leaky, LIF, integrating and current-based neurons.

    Args:
      path: of a .nir file, of this package or another tool.
      dt: seconds of a step; None where the graph's metadata have it.
      surrogate: what stands for the derivative of a spike, a name in `functional.SURROGATES`.

    Returns:
      program: program(params, inputs (B, L, F)) gives the outputs (B, L, K).
      params: {node: arrays}, to train or to look at.

    Raises:
      ValueError: a node is of another kind, there is a circle without a Delay, a delay is no whole
        number of steps, several inputs or outputs, or no dt.
    """
    import nir

    graph = nir.read(os.fspath(path))
    dt = dt if dt is not None else graph.metadata.get("dt")
    if dt is None:
        raise ValueError(f"{path} does not say how long a step is: give dt in seconds")
    dt = float(dt)
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    unknown = [f"{name} ({kind})" for name, kind in kinds.items() if kind not in NODES]
    if unknown:
        raise ValueError(f"{path} has nodes that are not read here: {', '.join(unknown)}")
    for kind in ("Input", "Output"):
        if list(kinds.values()).count(kind) != 1:
            raise ValueError(f"{path} has {list(kinds.values()).count(kind)} {kind} nodes, not 1")
    delays = _delays(graph, kinds, dt, path)
    order = _order(kinds, graph.edges, path)
    params = {
        name: {
            field: jnp.asarray(np.asarray(getattr(graph.nodes[name], field)), jnp.float32)
            for field in NODES[kind]
        }
        for name, kind in kinds.items() if NODES[kind]
    }
    features = {name: int(np.prod(_size(graph.nodes[name]))) for name in kinds}
    sources = {name: [a for a, b in graph.edges if b == name] for name in kinds}
    slope = SURROGATES[surrogate]

    def program(params: dict[str, Arrays], inputs: jax.Array) -> jax.Array:
        batch = inputs.shape[0]

        def step(states, x):
            values, after = {}, {}
            for name in delays:
                values[name] = states[name][0][0]
            for name in order:
                kind = kinds[name]
                total = x if kind == "Input" else sum(values[a] for a in sources[name])
                if kind == "Delay":
                    after[name] = (jnp.concatenate([states[name][0][1:], total[None]]),)
                    continue
                values[name], after[name] = _node(
                    kind, params.get(name, {}), states.get(name, ()), total, dt, slope
                )
            (output,) = (name for name, kind in kinds.items() if kind == "Output")
            return {name: after[name] for name in states}, values[output]

        start = {
            name: (jnp.zeros((delays[name], batch, features[name])),) if kind == "Delay"
            else (jnp.zeros((batch, features[name])),) * STATES[kind]
            for name, kind in kinds.items() if kind in STATES
        }
        _, outputs = jax.lax.scan(step, start, jnp.swapaxes(inputs, 0, 1))
        return jnp.swapaxes(outputs, 0, 1)

    return program, params


def _node(kind, p, state, x, dt, slope) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Return a node's output and its state after a step."""
    row = {field: value[None] for field, value in p.items()}
    if kind in ("Input", "Output"):
        return x, ()
    if kind in ("Linear", "Affine"):
        y = x @ p["weight"].T
        return (y + row["bias"] if kind == "Affine" else y), ()
    if kind == "Scale":
        return x * row["scale"], ()
    if kind == "Threshold":
        return fire(slope, False, x - row["threshold"]), ()
    *before, v = state
    if kind.startswith("Cuba"):
        keep = jnp.exp(-dt / row["tau_syn"])
        x = keep * before[0] + (1 - keep) * row["w_in"] * x
        before = [x]
    if kind == "IF":
        v = v + dt * row["r"] * x
    else:
        keep = jnp.exp(-dt / row["tau_mem" if kind.startswith("Cuba") else "tau"])
        v = keep * v + (1 - keep) * (row["v_leak"] + row["r"] * x)
    if "v_threshold" not in row:
        return v, (*before, v)
    spikes = fire(slope, False, v - row["v_threshold"])
    return spikes, (*before, jnp.where(spikes > 0, row["v_reset"], v))


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
