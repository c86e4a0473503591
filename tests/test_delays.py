"""Trained delays: a float64 loop, the gradient of a lag, streams, and neurons that fire later."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pspike_jax
from pspike_jax.functional import delay

B, L, H, D = 2, 19, 5, 6
LAGS = np.array([0.0, 1.0, 2.25, 5.5, 6.0], np.float32)


def by_loop(x, lags, resets=None):
    """Interpolate in float64 between what stood whole steps before, since the last reset."""
    y, start = np.zeros_like(x), np.zeros(len(x), int)
    for t in range(x.shape[1]):
        for b in range(len(x)):
            start[b] = t if resets is not None and resets[b, t] else start[b]
            for h, lag in enumerate(np.float64(lags)):
                for steps, share in ((np.floor(lag), 1 - lag % 1), (np.floor(lag) + 1, lag % 1)):
                    if t - steps >= start[b]:
                        y[b, t, h] += share * x[b, t - int(steps), h]
    return y


@pytest.mark.parametrize("packed", [False, True])
def test_delay_is_the_interpolation_of_a_loop_in_any_chunks(rng, packed):
    x = rng.normal(size=(B, L, H))
    resets = rng.random((B, L)) < 0.2 if packed else None
    expected, given = by_loop(x, LAGS, resets), jnp.float32(x)
    # Rounding of two products and a sum of numbers near 1, in float32.
    whole, last = delay(given, LAGS, D, resets=resets)
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    parts, state = [], None
    for a, b in ((0, 3), (3, 4), (4, L)):
        part = None if resets is None else resets[:, a:b]
        y, state = delay(given[:, a:b], LAGS, D, initial_state=state, resets=part)
        parts.append(y)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    np.testing.assert_array_equal(state, last)


def test_gradient_of_a_lag_is_the_difference_of_its_neighbours(rng):
    x = rng.normal(size=(1, L, H))
    slopes = jax.jacobian(lambda lags: delay(jnp.float32(x), lags, D)[0][0])(jnp.float32(LAGS))
    padded = np.concatenate([np.zeros((D + 1, H)), x[0]])
    for h, lag in enumerate(LAGS):
        whole = min(int(lag), D - 1)  # the longest lag looks to its left
        nearer, further = (padded[D + 1 - k : D + 1 - k + L, h] for k in (whole, whole + 1))
        np.testing.assert_allclose(slopes[:, h, h], further - nearer, atol=1e-6)


def test_a_lag_is_found_by_descent():
    wave = jnp.sin(jnp.linspace(0, 12, 120))[None, :, None]
    target = delay(wave, jnp.float32([4.3]), D)[0]
    loss = lambda lags: jnp.mean((delay(wave, lags, D)[0] - target) ** 2)
    lags, optimizer = jnp.float32([0.5]), optax.adam(0.05)
    state, slope = optimizer.init(lags), jax.jit(jax.grad(loss))
    for _ in range(300):
        updates, state = optimizer.update(slope(lags), state)
        lags = optax.apply_updates(lags, updates)
    assert abs(float(lags[0]) - 4.3) < 0.02  # Adam's last steps are shorter than that


def network(**fields):
    fields = {"num_outputs": 3, "widths": (6, 6), "norm": "none", "threshold": 0.05} | fields
    return pspike_jax.create_model("lif", **fields)


def with_lags(variables, share):
    for layer in variables["params"]["backbone"].values():
        layer["delay"]["share"] = jnp.full(6, share)
    return variables


def test_neurons_fire_a_rounded_lag_later_and_streams_are_the_whole(rng):
    x, key = jnp.float32(rng.normal(size=(B, 24, 4)) * 3), jax.random.key(0)
    plain, late = network(), network(delays=4)
    variables = jax.tree.map(jnp.asarray, late.init(key, x))
    variables = with_lags(nn.meta.unbox(variables), 0.55)  # 2.2 steps, rounded to 2
    undelayed = jax.tree.map(lambda a: a, variables)
    for layer in undelayed["params"]["backbone"].values():
        del layer["delay"]
    spikes = plain.apply(undelayed, x, capture=True)[1]["sites"]["hidden"]["spike_array"]
    outputs, aux = late.apply(variables, x, capture=True)
    later = aux["sites"]["hidden"]["spike_array"]
    assert 0.02 < np.mean(spikes) < 0.9
    for layer in range(2):  # each layer adds its own two steps
        steps = 2 * (layer + 1)
        np.testing.assert_array_equal(later[layer][:, steps:], spikes[layer][:, :-steps])
        assert not np.any(later[layer][:, :steps])
    state, parts = late.initial_state(B), []
    for t in range(24):
        state, (one, _) = late.apply(variables, state, x[:, t], method="step")
        parts.append(one)
    np.testing.assert_allclose(parts[-1], outputs, rtol=1e-5)  # sums in another order


def test_lags_learn_in_training_and_random_states_leave_the_line_empty(rng):
    x, keys = jnp.float32(rng.normal(size=(B, 24, 4)) * 3), {"params": jax.random.key(0)}
    model = network(delays=4, random_state=True)
    keys["spikes"] = jax.random.key(1)
    variables = nn.meta.unbox(model.init(keys, x))

    def loss(params):
        return jnp.sum(model.apply({"params": params}, x, train=True, rngs=keys)[0] ** 2)

    slopes = jax.jit(jax.grad(loss))(variables["params"])["backbone"]
    for layer in slopes.values():
        assert np.all(np.isfinite(layer["delay"]["share"])) and np.any(layer["delay"]["share"])
    drawn = model.apply({}, B, method="drawn_state", rngs=keys)
    for layer in drawn["layers"]:
        assert not np.any(layer["line"])
        assert np.any(jax.tree.leaves(layer["neurons"])[0])


def test_delays_are_refused_where_they_have_no_meaning(rng):
    with pytest.raises(ValueError, match="a delay runs one way"):
        network(delays=3, bidirectional=True)
    with pytest.raises(ValueError, match="longest is 0"):
        delay(jnp.zeros((1, 2, 3)), jnp.zeros(3), 0)
    with pytest.raises(ValueError, match="lags have shape"):
        delay(jnp.zeros((1, 2, 3)), jnp.zeros(2), 1)
