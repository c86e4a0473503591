"""Exported models: programs in another process, weights with a card, NIR by its definitions."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import draw_variables

import pspike_jax
from pspike_jax import export

nir = pytest.importorskip("nir")
pytest.importorskip("safetensors")
pytest.importorskip("flatbuffers")

BATCH, LENGTH, INPUTS = 3, 7, 2

RUN = """
import sys
sys.modules["pspike_jax"] = None  # it cannot be imported here
import json, jax, jax.export, numpy as np
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
card, given = json.load(open(sys.argv[1] + ".json")), np.load(sys.argv[2])
x = given["x"]
key = [given["key"]] if card["arguments"][-1]["name"] == "key" else []
if card["method"] == "call":
    outputs = program.call(x, *key)
else:
    state = [
        np.full([len(x) if isinstance(n, str) else n for n in one["shape"]],
                np.dtype(one["dtype"]).type(one["start"]), one["dtype"])
        for one in card["arguments"] if one["name"].startswith("state")
    ]
    for t in range(x.shape[1]):
        outputs, *state = program.call(x[:, t], *state, *key)
assert tuple(program.platforms) == ("cpu", "cuda", "tpu")
np.save(sys.argv[3], outputs)
"""


def tiny(name, **fields):
    model = pspike_jax.create_model(name, "tiny", **fields)
    x = np.random.default_rng(1).normal(size=(BATCH, LENGTH, INPUTS)).astype(np.float32)
    return model, draw_variables(model, x), x


@pytest.mark.parametrize("name", ["silif", "pspikessm"])
@pytest.mark.parametrize("method", ["call", "step"])
def test_program_runs_where_this_package_is_not(tmp_path, name, method):
    model, variables, x = tiny(name, **{"engine": "sequential"} if name == "pspikessm" else {})
    path = tmp_path / "program.bin"
    export.to_stablehlo(
        model, variables, path, example_shape=(LENGTH, INPUTS), method=method, length=LENGTH
    )
    key = jax.random.key(3)
    np.savez(tmp_path / "given.npz", x=x, key=jax.random.key_data(key))
    words = [sys.executable, "-c", RUN, str(path), str(tmp_path / "given.npz"),
             str(tmp_path / "found.npy")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, _ = model.apply(variables, x, rngs={"spikes": key})
    # Another order of sums, in float32; no spike of these inputs is at a tie.
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(("how", "message"), [
    ({"method": "jump"}, "method is 'jump'"),
    ({"example_shape": (7,)}, r"example_shape is \(7,\), expected \(L, F\)"),
])
def test_program_refuses_what_it_cannot_be(tmp_path, how, message):
    model, variables, _ = tiny("silif")
    how = {"example_shape": (LENGTH, INPUTS)} | how
    with pytest.raises(ValueError, match=message):
        export.to_stablehlo(model, variables, tmp_path / "p", **how)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "fields"), [
    ("pspikessm", {"d_model": 4}), ("csilif", {"widths": (4, 5)}), ("rlif", {}), ("s4d", {}),
])
def test_saved_weights_are_loaded_bit_for_bit(tmp_path, name, fields):
    model, variables, _ = tiny(name, **fields)
    export.save(tmp_path, model, variables, input_shape=(LENGTH, INPUTS), licence="mit")
    again, loaded = export.load(tmp_path)
    assert again == model and jax.tree.structure(loaded) == jax.tree.structure(variables)
    for before, after in zip(jax.tree.leaves(variables), jax.tree.leaves(loaded)):
        np.testing.assert_array_equal(before, after)
    assert "license: mit" in (tmp_path / "README.md").read_text()


def test_load_names_every_array_that_does_not_fit(tmp_path):
    model, variables, _ = tiny("silif")
    export.save(tmp_path, model, variables, input_shape=(LENGTH, INPUTS))
    card = json.loads((tmp_path / "config.json").read_text())
    card["model"]["fields"]["num_outputs"] = 5
    (tmp_path / "config.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"params/head/alpha is float32 \(3,\), expected .*\(5,\)"):
        export.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match="does not hold a model"):
        export.load(tmp_path)


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
                    u = u * node.scale
                elif isinstance(node, nir.Threshold):
                    u = (u > node.threshold).astype(float)
                    spikes[name].append(u)
                elif isinstance(node, nir.LI):
                    keep = np.exp(-dt / node.tau)
                    u = state[name] = keep * state[name] + (1 - keep) * (node.v_leak + node.r * u)
                else:
                    assert isinstance(node, (nir.Input, nir.Output))
                values[name] = u
        for name in waiting:
            waiting[name] = sum(values[a] for a, b in graph.edges if b == name)
        (last,) = (n for n in names if isinstance(graph.nodes[n], nir.Output))
        out.append(values[last])
    return np.stack(out, 1), {name: np.stack(s, 1) for name, s in spikes.items() if s}


@pytest.mark.parametrize("name", ["lif", "rlif", "adlif", "cadlif", "radlif"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_nir_graph_makes_the_spikes_of_the_model(tmp_path, name, norm):
    model, variables, x = tiny(name, norm=norm, pool="none")
    export.to_nir(model, variables, tmp_path / "net.nir")
    graph = nir.read(tmp_path / "net.nir")
    found, spikes = interpret(graph, x.astype(np.float64))
    expected, aux = model.apply(variables, x, capture=True)
    made = aux["sites"]["hidden"]["spike_array"]
    assert 0.02 < np.mean(made) < 0.9
    for layer in range(2):
        np.testing.assert_array_equal(spikes[f"layers_{layer}_spikes"], made[layer])
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 against float64
    program, params = export.from_nir(tmp_path / "net.nir")
    np.testing.assert_allclose(program(params, jnp.asarray(x)), expected, atol=1e-5)


@pytest.mark.parametrize(("name", "fields", "message"), [
    ("silif", {"norm": "none"}, "SiLIF has no equation among NIR's neurons"),
    ("lif", {}, "norm='layer' divides"),
    ("lif", {"norm": "none", "bidirectional": True}, "bidirectional=True"),
    ("lif", {"norm": "none", "random_state": True}, "random_state=True"),
    ("pspikessm", {}, "draws its spikes at random"),
    ("s4d", {}, "not a network of neurons that reset"),
])
def test_nir_refuses_what_it_cannot_keep(tmp_path, name, fields, message):
    model, variables, _ = tiny(name, **fields)
    with pytest.raises(ValueError, match=message):
        export.to_nir(model, variables, tmp_path / "net.nir")
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
    program, params = export.from_nir(tmp_path / "net.nir", dt=1e-3)
    x = rng.normal(size=(BATCH, 20, 2))
    found = np.asarray(program(params, jnp.asarray(x, jnp.float32)))
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
    grads = jax.grad(lambda p: program(p, jnp.asarray(x, jnp.float32)).sum())(params)
    assert np.abs(grads["affine"]["weight"]).max() > 0


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
