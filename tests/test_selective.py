"""Mixers whose decays follow their inputs: what contract tests and recordings do not see."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.functional import short_convolution
from pspike_jax.interop import export_mamba, load_mamba, load_mamba2
from pspike_jax.nn import whole_sequences
from pspike_jax.nn.mixers import GatedLinearAttention, SelectiveMixer, SSDMixer
from pspike_jax.objectives import NextToken
from pspike_jax.training import make_mesh

MIXERS = {
    "selective": SelectiveMixer(4, d_state=3),
    "ssd": SSDMixer(4, d_state=3, head_features=4, groups=2),
    "attention": GatedLinearAttention(4, heads=2, d_state=3),
}
# Float32 sums of some dozens of terms, in another order.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def start(mixer, u, key):
    """Return parameters of a mixer that are off their start."""
    boxed = jax.jit(mixer.init)(key, u)
    params = jax.tree.map(lambda box: box.value, boxed, is_leaf=lambda leaf: hasattr(leaf, "axes"))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(4)
    return tree.unflatten([a + np.float32(0.2 * rng.normal(size=a.shape)) for a in leaves])


def convolve_by_hand(x, kernel, bias, before, resets):
    y, window = np.zeros(x.shape), np.array(before, np.float64)
    for t in range(x.shape[1]):
        window[resets[:, t]] = 0
        window = np.concatenate([window[:, 1:], x[:, t : t + 1]], axis=1)
        y[:, t] = bias + np.sum(window * kernel[None], axis=1)
    return y, window


@pytest.mark.parametrize("length", [2, 9])
def test_short_convolution_matches_a_float64_loop(rng, length):
    x, before = rng.normal(size=(3, length, 5)), rng.normal(size=(3, 4, 5))
    kernel, bias = rng.normal(size=(4, 5)), rng.normal(size=5)
    resets = rng.uniform(size=(3, length)) < 0.3
    found = short_convolution(
        *map(jnp.float32, (x, kernel, bias)), initial_state=jnp.float32(before),
        resets=jnp.asarray(resets),
    )
    for got, wanted in zip(found, convolve_by_hand(x, kernel, bias, before, resets), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_mamba_starts_as_its_program(key):
    mixer = SelectiveMixer(32, d_state=5)
    u = jax.ShapeDtypeStruct((1, 2, 32), jnp.float32)
    params = jax.jit(lambda k: mixer.init(k, jnp.zeros(u.shape)))(key())["params"]
    rates = np.exp(params["A_log"].value)
    np.testing.assert_allclose(rates, np.tile(np.arange(1, 6), (64, 1)), rtol=1e-6)
    steps = np.log1p(np.exp(np.float64(params["dt_bias"].value)))
    assert 1e-3 <= steps.min() * 1.001 and steps.max() <= 0.1001 and steps.std() > 0.01
    np.testing.assert_array_equal(params["D"].value, 1)
    assert np.abs(params["dt_kernel"].value).max() <= 2**-0.5  # of rank 2
    assert np.abs(params["conv"]["kernel"].value).max() <= 0.5  # of 4 taps
    assert {params[n].group for n in ("A_log", "D", "dt_bias")} == {
        "dynamics", "no_decay", "step_size"
    }


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_that_runs_backwards_does_not_see_padding(rng, key, name):
    mixer, lengths = MIXERS[name], np.array([7, 3])
    u = np.float32(rng.normal(size=(2, 7, 4)))
    valid = np.arange(7)[None] < lengths[:, None]
    variables = start(mixer, u, key())
    run = jax.jit(lambda u, ctx: mixer.apply(variables, u, None, ctx, reverse=True)[0])
    masked = np.where(valid[..., None], u, 0)
    y = run(masked, whole_sequences(jnp.asarray(u), lengths=jnp.asarray(lengths)))
    alone = run(u[1:, :3], whole_sequences(jnp.asarray(u[1:, :3])))
    np.testing.assert_allclose(y[1, :3], alone[0], **CLOSE)


@pytest.mark.parametrize("name", MIXERS)
def test_time_split_over_devices_changes_no_output_and_no_gradient(rng, key, name):
    mixer = MIXERS[name]
    u = np.float32(rng.normal(size=(2, 12, 4)))
    variables = start(mixer, u, key())

    @jax.jit
    def run(variables, u):
        loss = lambda v, u: jnp.sum(jnp.sin(mixer.apply(v, u)[0]))
        return mixer.apply(variables, u), jax.grad(loss, (0, 1))(variables, u)

    expected = run(variables, u)
    with jax.set_mesh(make_mesh(data=2, sequence=4)):
        found = run(variables, u)
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_learnt_start_enters_a_stream_once(rng, key):
    mixer = SSDMixer(4, d_state=3, head_features=4, learned_start=True)
    u = np.float32(rng.normal(size=(2, 6, 4)))
    variables = start(mixer, u, key())
    run = jax.jit(lambda u, state: mixer.apply(variables, u, state))
    whole, final = run(u, None)
    assert np.abs(whole - run(u, final)[0]).max() > 1e-3
    state, parts = mixer.zero_state(2), []
    for t in range(6):
        y, state = run(u[:, t : t + 1], state)
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, **CLOSE)
    assert "resets" not in mixer.supports


@pytest.mark.parametrize("neuron", ["probabilistic", "lif"])
@pytest.mark.parametrize("kind", ["selective", "gated"])
def test_spikes_go_on_top_of_mixers_by_fields(rng, key, kind, neuron):
    model = pspike_jax.create_model("pspikessm", "tiny", parametrization=kind, neuron=neuron)
    x = np.float32(rng.normal(size=(2, 9, 2)))
    variables = jax.jit(model.init)({"params": key(), "spikes": key()}, x)
    run = functools.partial(jax.jit(model.apply, static_argnames="method"), noise=0.4)
    (expected, aux), state = run(variables, x), model.initial_state(2)
    for part in (x[:, :4], x[:, 4:]):
        state, (outputs, _) = run(variables, state, part, method="prefill")
    np.testing.assert_allclose(outputs, expected, **CLOSE)
    mixer = model.config.make_mixer(True, parent=None)
    np.testing.assert_array_equal(aux["sites"]["input"]["fan_out"], mixer.fan_out)
    assert aux["macs"]["dense"] == 2 * 2 * 9 * mixer.dense_macs_per_step
    assert model.poles(variables["params"]) is None


def test_mixers_under_spikes_refuse_to_look_both_ways():
    with pytest.raises(ValueError, match="'selective' looks one way"):
        pspike_jax.create_model("pspikessm", parametrization="selective", causal=False)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "gla", "psm"])
def test_a_language_model_steps_through_the_outputs_that_it_was_trained_on(rng, key, name):
    small = {"vocab_size": 7, "num_outputs": 7, "n_layers": 1, "pool": "none"}
    model = pspike_jax.create_model(name, "tiny", head_bias=False, **small)
    tokens = jnp.asarray(rng.integers(0, 7, (2, 9)), jnp.int32)
    variables = jax.jit(model.init)(key(), tokens)
    logits, _ = jax.jit(model.apply)(variables, tokens)
    batch = {"inputs": tokens, "lengths": jnp.array([9, 5])}
    losses, weights, _ = NextToken(7)(logits, batch)
    assert np.isfinite(losses).all() and weights.sum() == 8 + 4
    prefill = jax.jit(functools.partial(model.apply, method="prefill"))
    step = jax.jit(functools.partial(model.apply, method="step"))
    state, (found, _) = prefill(variables, model.initial_state(2), tokens[:, :6])
    np.testing.assert_allclose(found, logits[:, :6], rtol=1e-4, atol=1e-5)
    for t in range(6, 9):
        state, (found, _) = step(variables, state, tokens[:, t])
        np.testing.assert_allclose(found, logits[:, t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, load", [("mamba", load_mamba), ("mamba2", load_mamba2)])
def test_language_models_go_out_and_in(key, name, load):
    model = pspike_jax.create_model(
        name, "tiny", vocab_size=7, num_outputs=7, pool="none", head_bias=False,
        **({"groups": 1} if name == "mamba2" else {}),
    )
    tokens = jnp.arange(6, dtype=jnp.int32)[None]
    boxed = jax.jit(model.init)(key(), tokens)["params"]
    params = jax.tree.map(lambda box: box.value, boxed, is_leaf=lambda leaf: hasattr(leaf, "axes"))
    weights = export_mamba(model, params)
    assert weights["backbone.layers.1.mixer.conv1d.weight"].shape[1:] == (1, 4)
    module, variables = load(weights, dt_min=model.config.dt_min, dt_max=model.config.dt_max)
    assert module == model
    chex.assert_trees_all_equal(variables["params"], params)
    del weights["lm_head.weight"]  # tied
    tied = load(weights)[1]["params"]
    table = tied["encoder"]["embed"]["embedding"]
    np.testing.assert_array_equal(tied["head"]["linear"]["kernel"], table.T)
    weights["more"] = np.zeros(1)
    with pytest.raises(ValueError, match="more is unknown"):
        load(weights)
    with pytest.raises(ValueError, match="does not tell sizes"):
        load({"A_log": np.zeros((2, 2))})


@pytest.mark.parametrize("name, fields, match", [
    ("mamba2", {"d_model": 6, "head_features": 8}, "head_features is 8"),
    ("mamba2", {"groups": 3}, "groups is 3"),
    ("gla", {"heads": 3}, "heads is 3"),
    ("mamba", {"dt_min": 0.2}, "dt_min"),
    ("psm", {"l_max": 100}, "chunk is 16"),
])
def test_fields_that_do_not_fit_are_named(name, fields, match):
    with pytest.raises(ValueError, match=match):
        pspike_jax.create_model(name, **fields)
