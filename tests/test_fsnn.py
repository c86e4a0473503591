"""f-SNN: what neither the recordings nor the contract of all models see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.functional.fractional import gl_coefficients, multi_term_memory
from pspike_jax.functional.fractional_stream import multi_term_stream
from pspike_jax.functional.scaled_surrogates import SCALED_SURROGATES, scaled_surrogate
from pspike_jax.functional.surrogates import arctan

SMALL = {"num_outputs": 3, "widths": (5, 4), "norm": "none", "threshold": 0.3}


def model_and_params(rng, **fields):
    model = pspike_jax.create_model("fsnn", "tiny", **SMALL | fields)
    x = jnp.asarray(rng.normal(size=(2, 40, 3)) + 0.3, jnp.float32)
    params = jax.tree.map(jnp.asarray, jax.jit(model.init)(jax.random.key(1), x)["params"])
    return model, jax.tree.map(lambda p: p.value, params, is_leaf=lambda p: hasattr(p, "value")), x


def loop(config, params, x):
    """Spikes of all layers, in float64, every step summing over all of its past."""
    seen = []
    for i in range(len(config.widths)):
        layer = jax.tree.map(lambda a: np.asarray(a, np.float64), params["backbone"][f"layers_{i}"])
        current = x @ layer["input"]["kernel"] + layer["input"]["bias"]
        orders = layer["neurons"]["order"]
        share = layer["neurons"].get("coefficient", np.ones(len(orders)))
        tau = config.tau * (1 + np.exp(layer["neurons"]["log_tau"])) / 2
        length = current.shape[1]
        c = np.array([gl(order, length) for order in orders])
        c = (share * config.step**-orders) @ c
        v, spikes = [np.zeros(current[:, 0].shape)], []
        for k in range(length):
            slope = (current[:, k] - v[k]) / tau
            spikes.append((v[k] + slope >= config.threshold).astype(float))
            f = slope - spikes[-1] * config.threshold / tau
            past = sum(c[k + 1 - j] * v[j] for j in range(1, k + 1))
            v.append((f - past) / c[0])
        x = np.stack(spikes, axis=1)
        seen.append(x)
    return seen


def gl(order, count):
    c = [1.0]
    for d in range(1, count + 1):
        c.append(c[-1] * (1 - (1 + order) / d))
    return c


@pytest.mark.parametrize("orders, step", [((0.4,), 1.0), ((0.3, 0.8), 0.5)])
def test_networks_match_a_float64_loop_whole_and_as_a_stream(rng, orders, step):
    model, params, x = model_and_params(rng, orders=orders, coefficients=(0.7, 0.6), step=step)
    apply = jax.jit(model.apply, static_argnames=("capture", "method"))
    _, aux = apply({"params": params}, x, capture=True)
    wanted = loop(model.config, params, np.asarray(x, np.float64))
    got = [layer for site in aux["sites"].values() for layer in site["spike_array"]]
    assert 0.05 < np.mean(wanted[0]) < 0.95
    for one, two in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, two)
    state = model.initial_state(2)
    sizes = jax.tree.map(jnp.shape, state)
    state, (_, aux) = apply({"params": params}, state, x, capture=True, method="prefill")
    streamed = [layer for site in aux["sites"].values() for layer in site["spike_array"]]
    for one, two in zip(streamed, wanted, strict=True):
        np.testing.assert_array_equal(one, two)
    assert jax.tree.map(jnp.shape, state) == sizes  # nothing grows with time


def test_exponentials_of_several_terms_have_the_weights_of_the_sum():
    orders, coefficients = jnp.float32([0.3, 0.9]), jnp.float32([1.0, 0.4])
    whole = multi_term_memory(orders, coefficients, 400, 0.5)
    stream = multi_term_stream(orders, coefficients, 0.5)
    kept = stream.weights.shape[0]
    n = np.arange(400 - kept)
    tail = np.exp(-np.outer(n, np.asarray(stream.rates, np.float64))) @ stream.amplitudes
    np.testing.assert_allclose(stream.gain, whole.gain, rtol=1e-6)
    np.testing.assert_allclose(stream.weights, whole.weights[:kept], rtol=1e-5)
    np.testing.assert_allclose(tail, whole.weights[kept:], rtol=1e-4)


def test_what_the_program_does_is_off_unless_asked_for(rng):
    """Order 1 of L1: Euler's rule here; the program forgets its last value."""
    spikes = {}
    for rule, as_program in (("gl", False), ("l1", False), ("l1", True)):
        fields = {"rule": rule, "as_program": as_program, "train_tau": False, "widths": (64,)}
        model, params, x = model_and_params(np.random.default_rng(0), orders=(1.0,), **fields)
        _, aux = jax.jit(functools.partial(model.apply, capture=True))({"params": params}, x)
        spikes[rule, as_program] = np.asarray(aux["sites"]["hidden"]["spike_array"])
    np.testing.assert_array_equal(spikes["gl", False], spikes["l1", False])
    assert np.any(spikes["l1", True] != spikes["gl", False])


def test_a_trained_time_constant_starts_where_it_is_said_to(rng):
    for as_program, factor in ((False, 1), (True, 2)):
        runs = []
        for train_tau, tau in ((True, 1.5), (False, 1.5 * factor)):
            model, params, x = model_and_params(
                np.random.default_rng(0), as_program=as_program, train_tau=train_tau, tau=tau
            )
            runs.append(np.asarray(jax.jit(model.apply)({"params": params}, x)[0]))
        np.testing.assert_allclose(*runs, rtol=1e-6)


@pytest.mark.parametrize("name", SCALED_SURROGATES)
def test_surrogates_have_area_one(name):
    v = np.linspace(-400, 400, 2_000_001).astype(np.float32)
    area = np.sum(np.asarray(scaled_surrogate(name, 2.5)(v), np.float64)) * 4e-4
    np.testing.assert_allclose(area, 1, atol=2e-3)  # the tails of arctan beyond 400 are 6e-4
    np.testing.assert_allclose(scaled_surrogate("arctan", 2.0)(v), arctan(v), rtol=1e-6)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"orders": (1.2,)}, "an order is 1.2"),
        ({"orders": (0.2, 0.5), "coefficients": (1.0, 1.0), "rule": "l1"}, "several terms"),
        ({"orders": (0.2, 0.5)}, "1 numbers for 2 terms"),
        ({"neurons": ("lif",) * 5}, "expected 1 or 2"),
        ({"neurons": ("sif",)}, "a name of neurons is 'sif'"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        pspike_jax.create_model("fsnn", **fields)


def test_short_memory_forgets(rng):
    np.testing.assert_array_equal(gl_coefficients(jnp.ones(1), 3)[:, 0], [1, -1, 0, 0])
    results = []
    for memory in (3, 39, None):
        model, params, x = model_and_params(np.random.default_rng(0), memory=memory, orders=(0.3,))
        results.append(np.asarray(jax.jit(model.apply)({"params": params}, x)[0]))
    assert np.any(results[0] != results[2])
    np.testing.assert_array_equal(results[1], results[2])
