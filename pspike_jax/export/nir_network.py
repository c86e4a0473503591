"""A graph of NIR as a model: whole sequences, streams, training, as every model of the zoo.

NIR's equations are in continuous time. Here a step of dt holds its input: a leaky variable becomes
v = d v + (1 - d) (v_leak + r I) with d = exp(-dt / tau), and neurons with two take the current
first. A spike resets in the step in which it happens.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pspike_jax.functional.activity import activity
from pspike_jax.functional.neurons import fire
from pspike_jax.functional.surrogates import SURROGATES
from pspike_jax.models.config import Config, option
from pspike_jax.models.sequence import SequenceModel
from pspike_jax.nn.block import Block, Pass
from pspike_jax.nn.dense import ACTIVATIONS
from pspike_jax.nn.encoders import InputFeatures
from pspike_jax.nn.roles import Role

# {kind of node: how many variables it remembers}.
STATES = {"Delay": 1, "LI": 1, "LIF": 1, "IF": 1, "CubaLI": 2, "CubaLIF": 2}
SPIKING = ("Threshold", "LIF", "IF", "CubaLIF")
# {field: (axes of a parameter, group)}; what is not here are numbers of neurons.
ROLES = {
    "weight": (("features", "inputs"), "decay"),
    "bias": (("features",), "no_decay"),
    "threshold": (("features",), "threshold"),
    "v_threshold": (("features",), "threshold"),
}


class Node(NamedTuple):
    """A node of a graph.

    Attributes:
      name, kind: as in the file.
      features: of its output.
      sources: the nodes whose outputs add up to its input.
      shapes: ((field, shape) of each parameter).
      delay: steps of a Delay.
      operation: what a Scale's metadata ask for, "" for nothing; a name in `OPERATIONS`.
      epsilon: of a norm.
    """

    name: str
    kind: str
    features: int
    sources: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    delay: int = 0
    operation: str = ""
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """A graph without its numbers.

    Attributes:
      nodes: each behind its sources, but for Delays.
      output: name of the last node.
      dt: seconds of a step.
    """

    nodes: tuple[Node, ...]
    output: str
    dt: float

    @property
    def input_features(self) -> int:
        """Numbers of a step's input."""
        return next(node.features for node in self.nodes if node.kind == "Input")

    def fan_out(self, name: str) -> int:
        """Numbers that a spike is added to, behind delays, too."""
        total = 0
        for node in self.nodes:
            if name not in node.sources:
                continue
            if node.kind == "Delay":
                total += self.fan_out(node.name)
            else:
                total += node.features if node.kind in ("Linear", "Affine") else 1
        return total


def _layer_norm(x, epsilon):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + epsilon)


OPERATIONS = {name: lambda x, _, f=f: f(x) for name, f in ACTIVATIONS.items()}
OPERATIONS["layer_norm"] = _layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphConfig(Config):
    """Fields of a graph of NIR."""

    plan: Plan = option(Plan((), "", 1.0), "the graph")
    encoder: str = option("none", "inputs are taken as they are", choices=("none",))
    head: str = option("none", "outputs are those of the graph", choices=("none",))
    pool: str = option("none", "outputs of each step, or of whole sequences",
                       choices=("none", "mean", "last"))
    surrogate: str = option("boxcar", "backward rule of a spike", choices=SURROGATES)

    @property
    def d_model(self) -> int:
        """Numbers of a step's output."""
        return self.num_outputs


class GraphNetwork(SequenceModel):
    """A graph of linear maps and leaky, LIF, integrating and current-based neurons.

    The activity of its neurons has the names of their nodes.
    """

    config: GraphConfig
    supports = frozenset({"streaming"})

    @nn.nowrap
    def make_encoder(self) -> InputFeatures:
        """Return what checks the number of inputs."""
        return InputFeatures(None, jnp.float32, self.config.plan.input_features)

    @nn.nowrap
    def make_backbone(self) -> "GraphSteps":
        """Return the graph."""
        return GraphSteps(self.config.plan, self.config.surrogate)


class GraphSteps(Block):
    """The steps of a graph, one after the other.

    Attributes:
      plan: the graph.
      surrogate: name in `functional.SURROGATES`.
    """

    plan: Plan
    surrogate: str

    @nn.compact
    def __call__(self, x: jax.Array, state: dict | None, ctx: Pass):
        """Run the graph, as `nn.block` says; its parameters are {node: {field: array}}."""
        plan, slope = self.plan, SURROGATES[self.surrogate]
        params = self.param("nodes", lambda _: start(plan))
        neurons = [node for node in plan.nodes if node.kind in SPIKING]

        def step(states, now):
            values, after, drives = {}, {}, {}
            for node in plan.nodes:
                if node.kind == "Delay":
                    values[node.name] = states[node.name][0][:, 0]
            for node in plan.nodes:
                total = now if node.kind == "Input" else sum(values[name] for name in node.sources)
                if node.kind == "Delay":
                    (line,) = states[node.name]
                    after[node.name] = (jnp.concatenate([line[:, 1:], total[:, None]], axis=1),)
                    continue
                values[node.name], after[node.name], drives[node.name] = compute(
                    node, params.get(node.name, {}), states.get(node.name, ()), total, plan.dt,
                    slope,
                )
            seen = {node.name: (values[node.name], drives[node.name]) for node in neurons}
            return {name: after[name] for name in states}, (values[plan.output], seen)

        state = self.zero_state(x.shape[0]) if state is None else state
        inputs = jnp.swapaxes(x.astype(jnp.float32), 0, 1)
        state, (outputs, seen) = jax.lax.scan(step, state, inputs)
        sites = {}
        for node in neurons:
            spikes, drive = (jnp.swapaxes(array, 0, 1) for array in seen[node.name])
            active = slope(drive, 0.0) != 0
            record = activity(spikes, spikes, active, ctx.mask, plan.fan_out(node.name))
            if ctx.capture:
                record |= {"spike_array": spikes, "probability_array": spikes}
            sites[node.name] = jax.tree.map(lambda array: array[None], record)
        aux = {"sites": sites, "losses": {}, "macs": macs(plan)}
        return jnp.swapaxes(outputs, 0, 1), state, aux

    @nn.nowrap
    def zero_state(self, batch_size: int) -> dict[str, tuple[jax.Array, ...]]:
        """Return the variables of each node at rest: zeros."""
        found = {}
        for node in self.plan.nodes:
            shape = (batch_size, *([node.delay] if node.delay else []), node.features)
            if node.kind in STATES:
                found[node.name] = (jnp.zeros(shape, jnp.float32),) * STATES[node.kind]
        return found


def start(plan: Plan) -> dict[str, dict[str, Role]]:
    """Return ones for time constants and zeros for all else: a graph brings its own numbers."""
    found: dict[str, dict[str, Role]] = {}
    for node in plan.nodes:
        for field, shape in node.shapes:
            axes, group = ROLES.get(field, (("features",), "dynamics"))
            value = jnp.full(shape, 1.0 if field.startswith("tau") else 0.0, jnp.float32)
            found.setdefault(node.name, {})[field] = Role(value, axes, group)
    return found


def macs(plan: Plan) -> dict[str, jax.Array]:
    """Count the multiply-accumulates of a step: of states, and of products with real numbers."""
    kinds = {node.name: node.kind for node in plan.nodes}
    behind = {node.name: {kinds[name] for name in node.sources} for node in plan.nodes}
    dense = sum(
        shape[0] * shape[1] for node in plan.nodes for field, shape in node.shapes
        if field == "weight" and not behind[node.name] <= {*SPIKING, "Delay"}
    )
    states = sum(node.features * STATES.get(node.kind, 0) for node in plan.nodes
                 if node.kind != "Delay")
    return {"state": jnp.float32(states), "dense": jnp.float32(dense)}


def compute(
    node: Node, params: dict, state: tuple, x: jax.Array, dt: float, slope: Any
) -> tuple[jax.Array, tuple[jax.Array, ...], jax.Array | None]:
    """Return a node's output (B, H), its state after a step, and the drive of its spikes."""
    row = {field: value[None] for field, value in params.items()}
    if node.kind in ("Input", "Output"):
        return x, (), None
    if node.kind in ("Linear", "Affine"):
        y = x @ params["weight"].T
        return (y + row["bias"] if node.kind == "Affine" else y), (), None
    if node.kind == "Scale":
        y = OPERATIONS[node.operation](x, node.epsilon) if node.operation else x
        return y * row["scale"], (), None
    if node.kind == "Threshold":
        drive = x - row["threshold"]
        return fire(slope, False, drive), (), drive
    *before, v = state
    if node.kind.startswith("Cuba"):
        keep = jnp.exp(-dt / row["tau_syn"])
        x = keep * before[0] + (1 - keep) * row["w_in"] * x
        before = [x]
    if node.kind == "IF":
        v = v + dt * row["r"] * x
    else:
        keep = jnp.exp(-dt / row["tau_mem" if node.kind.startswith("Cuba") else "tau"])
        v = keep * v + (1 - keep) * (row["v_leak"] + row["r"] * x)
    if "v_threshold" not in row:
        return v, (*before, v), None
    drive = v - row["v_threshold"]
    spikes = fire(slope, False, drive)
    return spikes, (*before, jnp.where(spikes > 0, row["v_reset"], v)), drive
