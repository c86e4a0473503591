"""PRF: its neurons against loops in float64, its blocks where padding or a stream could tell."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.functional.neurons import Firing, SoftResetLIF, initial_state, unroll
from pspike_jax.functional.resonators import ResettingResonator, init_resonator
from pspike_jax.functional.surrogates import arctan
from pspike_jax.functional.ternary import largest, ternary
from pspike_jax.nn import whole_sequences
from pspike_jax.nn.resonators import ResonatorSite

H, LENGTH, BATCH = 5, 60, 3


def loop(beta, dt, x, threshold, lifted):
    """Return Re z less threshold and lift, of x (B, L, H), in float64."""
    z, lift, drives = np.zeros(x[:, 0].shape, complex), np.zeros(x[:, 0].shape), []
    for t in range(x.shape[1]):
        z = beta * z + dt * x[:, t]
        drives.append(z.real - threshold - lift)
        if lifted:
            lift = beta.real * (lift + threshold * (drives[-1] >= 0))
    return np.stack(drives, axis=1)


def parameters(rng, trained):
    params = {"log_dt": np.log(rng.uniform(0.05, 0.6, H)), "theta_log": rng.normal(0, 1, H)}
    rate = np.full(H, 1 / 2.5)
    if trained:
        params["gamma"], rate = np.log(rng.uniform(0.1, 1.0, H)), None
    rate = np.exp(params["gamma"]) if trained else rate
    dt = np.exp(params["log_dt"])
    beta = np.exp(dt * (-rate + 1j * np.exp(params["theta_log"])))
    return {name: jnp.float32(value) for name, value in params.items()}, beta, dt


@pytest.mark.parametrize("trained", [False, True])
def test_resonators_fire_as_a_float64_loop(rng, trained):
    params, beta, dt = parameters(rng, trained)
    x = rng.normal(0, 4, (BATCH, LENGTH, H)).astype(np.float32)
    expected = loop(beta, dt, x, 0.7, False)
    assert np.abs(expected).min() > 1e-5  # no tie that float32 could break otherwise
    site = ResonatorSite(H, 1, tau=2.5, threshold=0.7, trained_rate=trained)
    ctx = whole_sequences(jnp.asarray(x), capture=True)
    spikes, _, record = site.apply({"params": {"neuron": params}}, jnp.asarray(x), None, ctx)
    np.testing.assert_allclose(record["membrane_array"], expected + 0.7, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(spikes, expected >= 0)


def run(neuron, coefficients, x):
    currents = jnp.asarray(x).swapaxes(0, 1)
    state = initial_state(neuron, BATCH, H)
    firing = Firing(arctan, detach_reset=True)
    return unroll(neuron, coefficients, currents, state, firing=firing)[0].swapaxes(0, 1)


def test_a_reset_lifts_the_threshold_as_a_float64_loop(rng):
    params, beta, dt = parameters(rng, False)
    x = rng.normal(0, 4, (BATCH, LENGTH, H)).astype(np.float32)
    neuron = ResettingResonator(tau=2.5, threshold=0.7)
    expected = loop(beta, dt, x, 0.7, True)
    assert np.abs(expected).min() > 1e-5
    spikes = run(neuron, neuron.coefficients(params), x)
    np.testing.assert_array_equal(spikes, expected >= 0)
    assert (expected >= 0).sum() < (loop(beta, dt, x, 0.7, False) >= 0).sum()


def test_decoupled_reset_is_a_soft_reset(rng):
    x = rng.normal(0.3, 1, (BATCH, LENGTH, H)).astype(np.float32)
    neuron = SoftResetLIF(1 - 1 / 3.0)
    expected = loop(np.full(H, 1 - 1 / 3.0), 1.0, x, 1.0, True)
    assert np.abs(expected).min() > 1e-5
    np.testing.assert_array_equal(run(neuron, neuron.coefficients({}), x), expected >= 0)


def test_parameters_start_where_the_program_starts_them(key):
    params = init_resonator(
        key(), 4096, tau=4.0, fr_scale=0.5, dt_min=1e-3, dt_max=0.1, trained_rate=True
    )
    np.testing.assert_allclose(params["gamma"], -np.log(4.0), rtol=1e-6)
    theta = np.exp(params["theta_log"])
    assert theta.max() < 4 * np.pi and abs(theta.mean() / (2 * np.pi) - 1) < 0.05  # 5 sigma
    steps = np.asarray(params["log_dt"])
    assert np.log(1e-3) <= steps.min() and steps.max() <= np.log(0.1) + 1e-5


def test_ternary_spikes_have_gradients_through_the_largest_entry():
    x = jnp.float32([[0.2, -2.0, 0.1]])

    def total(x):
        return jnp.sum(jnp.float32([[1.0, 3.0, -2.0]]) * ternary(x, 0.15 * largest(x)))

    np.testing.assert_array_equal(ternary(x, 0.15 * largest(x)), [[0, -1, 0]])
    slope = lambda v: 1 / (1 + (np.pi * v) ** 2)
    exact = np.float64(x)
    up, down = slope(exact - 0.3), slope(-exact - 0.3)
    expected = np.float64([[1, 3, -2]]) * (up + down)
    of_theta = np.sum(np.float64([[1, 3, -2]]) * (down - up))
    expected[0, 1] += 0.15 * -1 * of_theta  # the largest is |-2|
    np.testing.assert_allclose(jax.grad(total)(x), expected, rtol=1e-5)


@pytest.mark.parametrize("fields", [
    {"neuron": "prf_reset", "spatial": "binary_vec"},
    {"neuron": "decoupled_reset", "spatial": "identity"},
    {"neuron": "prf_train", "bidirectional": True},
    {"neuron": "prf_reset", "spatial": "gsu", "bidirectional": True},
])
def test_other_kinds_ignore_padding_and_stream_where_they_can(fields, rng, key):
    model = pspike_jax.create_model("prf", "tiny", **fields)
    x = jnp.asarray(rng.normal(0.5, 1, (BATCH, 8, 2)), jnp.float32)
    variables = nn.meta.unbox(jax.jit(model.init)(key(), x))
    apply = jax.jit(model.apply, static_argnames="method")
    lengths = jnp.array([8, 5, 3])
    outputs, aux = apply(variables, x, lengths)
    garbage = x.at[1, 5:].set(9.0).at[2, 3:].set(-9.0)
    again, _ = apply(variables, garbage, lengths)
    np.testing.assert_allclose(again, outputs, rtol=2e-5, atol=2e-5)
    assert all(record["spikes"].sum() > 0 for record in aux["sites"].values())
    assert ("streaming" in model.supports) == (len(fields) == 2 and "bidirectional" not in fields)
    if "streaming" in model.supports:
        whole, _ = apply(variables, x)
        state, _ = apply(variables, model.initial_state(BATCH), x[:, :3], method="prefill")
        _, (streamed, _) = apply(variables, state, x[:, 3:], method="prefill")
        np.testing.assert_allclose(streamed, whole, rtol=2e-5, atol=2e-5)
