"""Blocks of S4D layers and reset neurons: float64 loops of SpikingSSM, LongSpike and SPikE-SSM."""

import functools
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from experiments import train_sdn
from pspike_jax.functional.initializers import s4d_lin_below
from pspike_jax.interop import export_spikingssm, load_spikingssm
from pspike_jax.nn import roles
from pspike_jax.nn.surrogate_network import list_surrogate_networks, load_surrogate_network

BATCH, LENGTH, FEATURES = 2, 20, 3
KEY = jax.random.key(2)


def made(name, rng, **fields):
    """Return a small model and variables that are not those of the start."""
    model = pspike_jax.create_model(name, "tiny", n_layers=1, **fields)
    x = jnp.asarray(2 * rng.normal(size=(BATCH, LENGTH, FEATURES)), jnp.float32)
    variables = nn.meta.unbox(jax.jit(model.init)(KEY, x))
    move = lambda leaf: leaf + 0.1 * jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    return model, variables | {"params": jax.tree.map(move, variables["params"])}, x


def kernels(ssm, terms):
    """Return the kernel of each direction, (directions, H, L) float64, from its definition."""
    A = -np.exp(ssm["A_real"]) + 1j * ssm["A_imag"]
    B = ssm["B"][..., 0] + 1j * ssm["B"][..., 1] if "B" in ssm else np.ones_like(A)
    C = ssm["C"][..., 0] + 1j * ssm["C"][..., 1]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    omega, eta = np.zeros(1), np.ones(1)
    if terms:
        omega = 1e-6 + sigmoid(ssm["omega_logit"]) * (100 - 1e-6)
        eta = 1e-6 + sigmoid(ssm["eta_logit"]) * (10 - 1e-6)
    total = 0
    for shift, scale in zip(omega, eta, strict=True):
        poles, dt = scale * A - shift, np.exp(ssm["log_dt"])[:, None]
        weights = scale * C * B * (np.exp(dt * poles) - 1) / poles
        powers = np.exp(dt[..., None] * poles[..., None] * np.arange(LENGTH))
        total = total + 2 * np.einsum("chn,hnl->chl", weights, powers).real
    return total


def block(x, params, neuron, terms):
    """Run one block with a norm in front, step by step; return its output and spikes."""
    norm, ssm = params["norm"]["layer"], params["ssm"]
    centred = x - x.mean(-1, keepdims=True)
    z = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    z = z * norm["scale"] + norm["bias"]
    k = kernels(ssm, terms)
    y = z * ssm["D"]
    for t in range(LENGTH):
        for s in range(LENGTH):
            if s <= t:
                y[:, t] += k[0, :, t - s] * z[:, s]
            elif len(k) == 2:
                y[:, t] += k[1, :, s - t - 1] * z[:, s]
    spikes = neuron(y, params)
    pre = spikes @ params["output_linear"]["kernel"] + params["output_linear"]["bias"]
    half = x.shape[-1]
    return x + pre[..., :half] / (1 + np.exp(-pre[..., half:])), spikes


def hard(y, params):
    y = y / np.exp(params["log_threshold"])
    u, spikes = np.zeros_like(y[:, 0]), np.zeros_like(y)
    for t in range(LENGTH):
        u = 0.125 * u + y[:, t]
        spikes[:, t] = u >= 1
        u = u * (1 - spikes[:, t])
    return spikes


def refractory(y, params):
    neuron = params["neurons"]["neuron"]
    V, kappa = np.exp(neuron["log_threshold"]), np.exp(neuron["log_magnitude"])
    u, a, s = (np.zeros_like(y[:, 0]) for _ in range(3))
    spikes = np.zeros_like(y)
    for t in range(LENGTH):
        u, a = 0.125 * (u - V * s) + y[:, t], 0.6 * a + s
        s = spikes[:, t] = u - kappa * a >= V
    return spikes


@pytest.mark.parametrize("name, neuron, fields", [
    ("spikingssm", hard, {"neuron": "bptt", "causal": False}),
    ("longspike", hard, {"neuron": "bptt", "terms": 3, "evaluation": "parallel"}),
    ("spike_ssm", refractory, {}),
])
def test_model_equals_a_float64_loop(name, neuron, fields, rng):
    model, variables, x = made(name, rng, **fields)
    outputs, aux = jax.jit(functools.partial(model.apply, capture=True))(variables, x)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    encoder, head = wide["encoder"]["linear"], wide["head"]["linear"]
    layer = jax.tree.map(lambda leaf: leaf[0], wide["backbone"]["blocks"])
    features = np.asarray(x, np.float64) @ encoder["kernel"] + encoder["bias"]
    features, spikes = block(features, layer, neuron, name == "longspike")
    assert 0.02 < spikes.mean() < 0.9
    np.testing.assert_array_equal(aux["sites"]["neurons"]["spike_array"][0], spikes)
    expected = features.mean(1) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_parameters_start_as_published():
    model = pspike_jax.create_model("spikingssm", "tiny", causal=False)
    x = jnp.zeros((1, 4, FEATURES), jnp.float32)
    boxed = jax.jit(model.init)(KEY, x)
    blocks = nn.meta.unbox(boxed)["params"]["backbone"]["blocks"]
    assert blocks["ssm"]["C"].shape == (2, 2, 8, 2, 2)
    assert not np.any(blocks["log_threshold"])
    groups = roles.groups(boxed["params"])["backbone"]["blocks"]
    assert groups["log_threshold"] == "threshold"
    np.testing.assert_allclose(s4d_lin_below(6), -0.5 - 1j * np.array([1e-4, np.pi, 2 * np.pi]))
    np.testing.assert_allclose(blocks["ssm"]["A_imag"][0, 0], [-1e-4, -np.pi], rtol=1e-6)
    sizes = {"per_neuron": 8, "shared": 1, "fixed": 0}
    for threshold, size in sizes.items():
        assert model.replace(threshold=threshold).config.thresholds == size


def test_presets_keep_the_norm_that_the_program_loses():
    model = pspike_jax.create_model("spikingssm", "listops")
    program = pspike_jax.create_model("spikingssm", "listops_program")
    assert (model.config.norm, model.config.prenorm) == ("batch", False)
    assert program == model.replace(norm="none", mask_padding=False)
    text = pspike_jax.create_model("spikingssm", "text_program")
    assert text.config.norm == "batch"  # in front: the program keeps that one


@pytest.mark.parametrize("name, fields", [
    ("spikingssm", {"neuron": "bptt"}), ("lif_ssm", {"norm": "layer"}), ("lif", {})
])
def test_parallel_evaluation_gives_the_scan_and_says_what_it_took(name, fields, rng):
    x = jnp.asarray(2 * rng.normal(size=(BATCH, LENGTH, FEATURES)), jnp.float32)
    results, variables = [], None
    for evaluation in ("scan", "parallel"):
        model = pspike_jax.create_model(name, "tiny", evaluation=evaluation, **fields)
        variables = variables or nn.meta.unbox(jax.jit(model.init)(KEY, x))

        def loss(params, model=model):
            outputs, aux = model.apply(variables | {"params": params}, x, capture=True)
            return jnp.sum(jnp.sin(outputs)), aux["sites"]

        results.append(jax.jit(jax.grad(loss, has_aux=True))(variables["params"]))
    (scan_bar, scanned), (bar, found) = results
    for site, record in found.items():
        np.testing.assert_array_equal(record["spike_array"], scanned[site]["spike_array"])
        assert "rows" not in scanned[site]
        assert np.all(record["open_rows"] <= record["rows"]) and np.all(record["rounds"] >= 1)
    for one, two in zip(jax.tree.leaves(bar), jax.tree.leaves(scan_bar), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5 + 1e-5 * np.abs(two).max())


def test_neurons_whose_variables_mix_have_no_parallel_form():
    with pytest.raises(ValueError, match="SiLIF has no parallel form"):
        pspike_jax.create_model("silif", evaluation="parallel")


@pytest.mark.parametrize("fields", [
    {"neuron": "sdn", "vocab_size": 7, "norm": "batch", "causal": False},
    {"neuron": "bptt", "threshold": "shared", "train_B": False},
    {"neuron": "sltt", "threshold": "fixed", "norm": "none", "prenorm": False},
])
def test_state_dicts_of_strangers_come_in_and_go_out(fields, rng):
    fields = fields | {"mask_padding": False}
    model = pspike_jax.create_model("spikingssm", "tiny", **fields)
    tokens = "vocab_size" in fields
    x = jnp.zeros((1, 4), jnp.int32) if tokens else jnp.zeros((1, 4, FEATURES), jnp.float32)
    variables = nn.meta.unbox(jax.eval_shape(model.init, KEY, x))
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)
    variables = jax.tree.map(draw, variables)
    state_dict = export_spikingssm(model, variables["params"], variables.get("batch_stats", {}))
    assert state_dict["backbone.s4_layers.1.D"].shape == (1, 8)
    found, loaded = load_spikingssm(
        state_dict, neuron=fields["neuron"], prenorm=fields.get("prenorm", True)
    )
    sizes = ("d_model", "d_state", "n_layers", "causal", "train_B", "vocab_size")
    for field in (*sizes, "norm", "threshold"):
        assert getattr(found.config, field) == getattr(model.config, field), field
    chex.assert_trees_all_equal(loaded, variables)
    state_dict.pop("backbone.s4_layers.1.kernel.C")
    state_dict |= {"backbone.s4_layers.0.D": np.zeros(3), "extra": np.zeros(1)}
    wrong = r"extra is unknown\n.*0.D has shape \(3,\).*\n.*C is missing"
    with pytest.raises(ValueError, match=f"(?s){wrong}"):
        load_spikingssm(state_dict, neuron=fields["neuron"], prenorm=fields.get("prenorm", True))


def test_shipped_surrogate_networks_agree_as_their_cards_say():
    assert "tau_0.125" in list_surrogate_networks()
    for name in list_surrogate_networks():
        network, card = load_surrogate_network(name)
        assert sum(array.size for array in network.values()) == 153
        found = train_sdn.report(network, card["tau"], KEY, rows=64, length=512)
        wrong = card["agreement"]["network"]["wrong"]
        assert wrong < 0.25 * card["agreement"]["no_membrane"]["wrong"]
        # Some dozens of wrong spikes: four standard errors of their number.
        expected = wrong * 64 * 512
        assert abs(found["network"]["wrong"] * 64 * 512 - expected) < 4 * expected**0.5 + 4


def test_the_command_trains_a_network_that_a_model_takes(tmp_path, capsys):
    path = tmp_path / "tau_0.5.json"
    sizes = ["--sequences=40", "--length=32", "--epochs=2", "--batch=8"]
    train_sdn.main(["--tau=0.5", f"--output={path}", *sizes])
    assert "without a membrane" in capsys.readouterr().out
    card = json.loads(path.read_text())
    assert card["training"]["losses"][1] < card["training"]["losses"][0]
    model = pspike_jax.create_model("spikingssm", "tiny", network=str(path))
    variables = jax.jit(model.init)(KEY, jnp.zeros((1, 4, FEATURES), jnp.float32))
    taps = variables["batch_stats"]["backbone"]["blocks"]["neurons"]["network"]["taps"]
    np.testing.assert_array_equal(taps[1], np.float32(card["weights"]["taps"]))
    card["weights"]["taps"] = [0.0]
    path.write_text(json.dumps(card))
    with pytest.raises(ValueError, match="is no card of a surrogate network"):
        load_surrogate_network(str(path))
    with pytest.raises(FileNotFoundError, match="'tau_7'; expected one of tau_0.125"):
        load_surrogate_network("tau_7")
    with pytest.raises(SystemExit):
        train_sdn.main(["--tau=2", *sizes])
