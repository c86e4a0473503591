"""Graphs of NIR by NIR's own definitions: an interpreter in float64 that knows no model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from small_models import draw_variables

import pspike_jax
from pspike_jax import export
from pspike_jax.export.nir_network import GraphNetwork
from pspike_jax.models.silif import SpikingNetwork

nir = pytest.importorskip("nir")

BATCH, LENGTH, INPUTS = 3, 7, 2
OPERATIONS = {
    "gelu": lambda u, _: u * (1 + erf(u / np.sqrt(2))) / 2,
    "relu": lambda u, _: np.maximum(u, 0),
    "layer_norm": lambda u, node: (u - u.mean(-1, keepdims=True))
    / np.sqrt(u.var(-1, keepdims=True) + node.metadata["epsilon"]),
}


def tiny(name, **fields):
    model = pspike_jax.create_model(name, "tiny", **fields)
    x = np.random.default_rng(1).normal(size=(BATCH, LENGTH, INPUTS)).astype(np.float32)
    return model, draw_variables(model, x), x


def interpret(graph, x):
    """Run a graph by NIR's definitions, float64, its inputs held for a step dt."""
    dt, names, out = float(graph.metadata["dt"]), list(graph.nodes), []
    state = {name: 0.0 for name in names}
    waiting = {
        name: np.zeros((len(x), len(node.delay)))
        for name, node in graph.nodes.items() if isinstance(node, nir.Delay)
    }
    spikes = {name: [] for name in names}
    for step in range(x.shape[1]):
        values = dict(waiting)
        while len(values) < len(names):
            for name in names:
                sources = [a for a, b in graph.edges if b == name]
                if name in values or not all(a in values for a in sources):
                    continue
                node = graph.nodes[name]
                u = x[:, step] if isinstance(node, nir.Input) else sum(values[a] for a in sources)
                if isinstance(node, (nir.Linear, nir.Affine)):
                    u = u @ node.weight.T + getattr(node, "bias", 0.0)
                elif isinstance(node, nir.Scale):
                    if "operation" in node.metadata:
                        u = OPERATIONS[node.metadata["operation"]](u, node)
                    u = u * node.scale
                elif isinstance(node, nir.Threshold):
                    u = (u > node.threshold).astype(float)
                    spikes[name].append(u)
                elif isinstance(node, (nir.LI, nir.LIF)):
                    keep = np.exp(-dt / node.tau)
                    u = state[name] = keep * state[name] + (1 - keep) * (node.v_leak + node.r * u)
                    if isinstance(node, nir.LIF):
                        v, u = u, (u > node.v_threshold).astype(float)
                        state[name] = np.where(u > 0, node.v_reset, v)
                        spikes[name].append(u)
                else:
                    assert isinstance(node, (nir.Input, nir.Output))
                values[name] = u
        for name in waiting:
            waiting[name] = sum(values[a] for a, b in graph.edges if b == name)
        (last,) = (n for n in names if isinstance(graph.nodes[n], nir.Output))
        out.append(values[last])
    return np.stack(out, 1), {name: np.stack(s, 1) for name, s in spikes.items() if s}


def check(tmp_path, model, variables, x, layers, **how):
    """Compare a graph with its model: spikes by node, outputs; and read it back both ways."""
    noise = {"noise": how["noise"]} if "noise" in how else {}
    export.to_nir(model, variables, tmp_path / "net.nir", **how)
    graph = nir.read(tmp_path / "net.nir")
    found, spikes = interpret(graph, x.astype(np.float64))
    expected, aux = model.apply(variables, x, capture=True, **noise)
    for node, (site, layer) in layers.items():
        made = aux["sites"][site]["spike_array"][layer]
        np.testing.assert_array_equal(spikes[node], made, err_msg=node)
        assert 0.01 < np.mean(made) < 0.99
    np.testing.assert_allclose(found, expected, atol=2e-5)  # float32 against float64
    again, read = export.from_nir(tmp_path / "net.nir")
    assert again == model
    assert jax.tree.structure(read) == jax.tree.structure(variables)
    for one, other in zip(jax.tree.leaves(read), jax.tree.leaves(variables)):
        np.testing.assert_array_equal(one, other)
    network, numbers = export.from_nir(tmp_path / "net.nir", as_graph=True)
    assert isinstance(network, GraphNetwork)
    found, aux = network.apply(numbers, x, capture=True)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    for node in layers:
        np.testing.assert_array_equal(aux["sites"][node]["spike_array"][0], spikes[node])


@pytest.mark.parametrize(("name", "fields"), [
    ("lif", {"norm": "batch"}), ("rlif", {"norm": "none"}), ("radlif", {"norm": "batch"}),
    ("silif", {"norm": "none"}), ("csilif", {"norm": "batch"}),
    ("resonate_and_fire", {"norm": "none"}),
])
def test_nir_graph_makes_the_spikes_of_neurons_that_reset(tmp_path, name, fields):
    parts = tiny(name, pool="none", **fields)
    layers = {f"layers_{i}_spikes": ("hidden", i) for i in range(2)}
    check(tmp_path, *parts, layers)


@pytest.mark.parametrize(("name", "fields", "how"), [
    ("pspikessm", {"norm": "batch", "activation": "identity"}, {"noise": 0.4}),
    ("pspikessm", {"prenorm": False, "shared_dynamics": True}, {"noise": 0.4, "metadata": True}),
    ("lif_ssm", {"norm": "batch", "mixer": "none", "activation": "relu"}, {"metadata": True}),
])
def test_nir_graph_makes_the_spikes_of_state_spaces(tmp_path, name, fields, how):
    parts = tiny(name, pool="none", **fields)
    layers = {
        f"layers_{i}_{site}_spikes": (site, i) for i in range(2) for site in ("input", "output")
    }
    check(tmp_path, *parts, layers, **how)


def test_nir_graph_says_that_thresholds_are_drawn(tmp_path):
    model, variables, _ = tiny("pspikessm", norm="batch", activation="identity")
    export.to_nir(model, variables, tmp_path / "net.nir", metadata=True)
    node = nir.read(tmp_path / "net.nir").nodes["layers_1_output_spikes"]
    assert node.metadata["drawn_threshold"].startswith("uniform in [0, 1)")
    assert export.from_nir(tmp_path / "net.nir")[0] == model
    with pytest.raises(ValueError, match="layers_0_input_spikes is drawn at every step"):
        export.from_nir(tmp_path / "net.nir", as_graph=True)


def test_nir_graph_whose_numbers_changed_is_read_as_it_is(tmp_path):
    model, variables, x = tiny("rlif", norm="none", pool="none")
    export.to_nir(model, variables, tmp_path / "net.nir")
    graph = nir.read(tmp_path / "net.nir")
    graph.nodes["layers_0_product"].weight *= 2
    nir.write(tmp_path / "changed.nir", graph)
    network, numbers = export.from_nir(tmp_path / "changed.nir")
    found, _ = network.apply(numbers, x)
    np.testing.assert_allclose(found, interpret(graph, x.astype(np.float64))[0], atol=1e-5)


def test_nir_graph_streams_as_it_runs(tmp_path):
    model, variables, x = tiny("rlif", norm="none", pool="none")
    export.to_nir(model, variables, tmp_path / "net.nir")
    network, numbers = export.from_nir(tmp_path / "net.nir", as_graph=True)
    network = network.replace(pool="mean")
    expected, _ = network.apply(numbers, x)
    state = network.initial_state(BATCH)
    state, _ = network.apply(numbers, state, x[:, :4], method="prefill")
    _, (found, _) = network.apply(numbers, state, x[:, 4:], method="prefill")
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    grown = jax.eval_shape(network.init, jax.random.key(0), x)
    assert jax.tree.structure(numbers) == jax.tree.structure(
        jax.tree.map(lambda leaf: 0, pspike_jax.nn.roles.groups(grown))
    )


@pytest.mark.parametrize(("name", "fields", "how", "message"), [
    ("lif", {}, {}, "norm='layer' divides"),
    ("lif", {"norm": "none", "bidirectional": True}, {}, "bidirectional=True"),
    ("lif", {"norm": "none", "random_state": True}, {}, "random_state=True"),
    ("pspikessm", {}, {}, "draws its spikes at random"),
    ("pspikessm", {}, {"noise": 0.5}, "NIR has no node for 'layer_norm'"),
    ("pspikessm", {"norm": "batch"}, {"noise": 0.5}, "NIR has no node for 'gelu'"),
    ("pspikessm", {"causal": False}, {"noise": 0.5}, "looks ahead"),
    ("pspikessm", {"precision": "bfloat16"}, {"noise": 0.5}, "rounds every step"),
    ("lif_ssm", {}, {"noise": 0.5}, "draws no spikes"),
    ("s4d", {}, {}, "S4D is not written"),
])
def test_nir_refuses_what_it_cannot_keep(tmp_path, name, fields, how, message):
    model, variables, _ = tiny(name, **fields)
    with pytest.raises(ValueError, match=message):
        export.to_nir(model, variables, tmp_path / "net.nir", **how)
    assert not list(tmp_path.iterdir())


def test_nir_of_other_tools_is_read_by_its_definitions(tmp_path, rng):
    ones = np.ones(4)
    graph = nir.NIRGraph.from_list(
        nir.Affine(weight=rng.normal(size=(4, 2)), bias=rng.normal(size=4)),
        nir.CubaLIF(tau_syn=2e-3 * ones, tau_mem=5e-3 * ones, r=3 * ones, v_leak=0.1 * ones,
                    v_threshold=0.3 * ones, v_reset=-0.2 * ones, w_in=2 * ones),
        nir.Linear(weight=rng.normal(size=(4, 4))),
        nir.LIF(tau=4e-3 * ones, r=2 * ones, v_leak=0 * ones, v_threshold=0.5 * ones),
    )
    nir.write(tmp_path / "net.nir", graph)
    with pytest.raises(ValueError, match="does not say how long a step is"):
        export.from_nir(tmp_path / "net.nir")
    model, variables = export.from_nir(tmp_path / "net.nir", dt=1e-3)
    x = rng.normal(size=(BATCH, 20, 2))
    run = lambda variables: model.apply(variables, jnp.asarray(x, jnp.float32))[0]
    found = np.asarray(run(variables))
    first, second = (graph.nodes[n] for n in ("cubalif", "lif"))
    current, v, u = (np.zeros((BATCH, 4)) for _ in range(3))
    decay = {tau: np.exp(-1e-3 / tau) for tau in (2e-3, 5e-3, 4e-3)}
    for t in range(20):
        drive = x[:, t] @ graph.nodes["affine"].weight.T + graph.nodes["affine"].bias
        current = decay[2e-3] * current + (1 - decay[2e-3]) * 2 * drive
        v = decay[5e-3] * v + (1 - decay[5e-3]) * (0.1 + 3 * current)
        s = v > first.v_threshold
        v = np.where(s, -0.2, v)
        u = decay[4e-3] * u + (1 - decay[4e-3]) * 2 * (s @ graph.nodes["linear"].weight.T)
        z = u > second.v_threshold
        u = np.where(z, 0.0, u)
        np.testing.assert_array_equal(found[:, t], z)
    assert 0.05 < found.mean() < 0.9
    grads = jax.grad(lambda variables: run(variables).sum())(variables)
    assert np.abs(grads["params"]["backbone"]["nodes"]["affine"]["weight"]).max() > 0


@pytest.mark.parametrize("biased", [True, False])
def test_lif_chain_of_another_tool_becomes_a_network_of_the_zoo(tmp_path, rng, biased):
    taus = rng.uniform(3e-3, 2e-2, 5)
    product = lambda *shape: nir.Affine(
        weight=rng.normal(size=shape), bias=0.3 * rng.normal(size=shape[0])
    ) if biased else nir.Linear(weight=rng.normal(size=shape))
    rest = np.zeros(5)
    graph = nir.NIRGraph.from_list(
        product(5, 2),
        nir.LIF(tau=taus, r=6 + rest, v_leak=rest, v_threshold=rng.uniform(0.2, 0.6, 5)),
        nir.Linear(weight=rng.normal(size=(3, 5))),
        nir.LI(tau=np.full(3, 0.01), r=np.array([1.0, 2.0, 3.0]), v_leak=np.zeros(3)),
    )
    graph.metadata["dt"] = 1e-3
    nir.write(tmp_path / "net.nir", graph)
    model, variables = export.from_nir(tmp_path / "net.nir")
    assert isinstance(model, SpikingNetwork) and model.config.widths == (5,)
    x = rng.normal(size=(BATCH, 20, 2)).astype(np.float32)
    expected, spikes = interpret(nir.read(tmp_path / "net.nir"), x.astype(np.float64))
    found, aux = model.apply(variables, x, capture=True)
    (name,) = spikes
    np.testing.assert_array_equal(aux["sites"]["hidden"]["spike_array"][0], spikes[name])
    assert 0.05 < spikes[name].mean() < 0.9
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # And out again, as NIR's own LIF.
    export.to_nir(model, variables, tmp_path / "again.nir")
    again = nir.read(tmp_path / "again.nir")
    assert sum(isinstance(node, nir.LIF) for node in again.nodes.values()) == 1
    np.testing.assert_allclose(interpret(again, x.astype(np.float64))[0], expected, atol=1e-5)


def test_nir_circles_without_a_delay_are_refused(tmp_path):
    ones = np.ones(2)
    nodes = {
        "input": nir.Input(input_type=np.array([2])),
        "li": nir.LI(tau=ones, r=ones, v_leak=ones), "scale": nir.Scale(scale=ones),
        "output": nir.Output(output_type=np.array([2])),
    }
    edges = [("input", "li"), ("li", "scale"), ("scale", "li"), ("li", "output")]
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, edges))
    with pytest.raises(ValueError, match="li, output, scale is a circle without a Delay"):
        export.from_nir(tmp_path / "net.nir", dt=1e-3)
