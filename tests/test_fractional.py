"""Fractional memory against float64 loops, closed forms, and the f-SNN program's recordings."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfcx, gamma

from pspike_jax.functional.fractional import (
    fractional_memory,
    gl_coefficients,
    lif_rate,
    multi_term_memory,
)
from pspike_jax.functional.fractional_solve import solve
from pspike_jax.functional.fractional_stream import (
    short_stream_memory,
    start_stream,
    stream_memory,
    stream_step,
)

RULES = ["gl", "l1", "pred"]


def peak_error(actual, wanted):
    return np.max(np.abs(np.asarray(actual) - wanted)) / np.max(np.abs(wanted))


def relaxation(v, x):
    """v' = (x - v) / 2, and the value before the step is seen."""
    return (x - v) / 2, v


def loop(rule, alpha, x, start, h=1.0, memory=None, drop_start=False, tau=2.0):
    """Values before each step and the last one, summing the whole past in float64."""
    length, alpha = len(x), np.asarray(alpha, np.float64)
    origin = 0 * start if drop_start else start
    y, rates = [start - origin], []
    last = np.inf if memory is None else memory
    for k in range(length):
        rates.append((x[k] - (y[k] + origin)) / tau)
        past = 0 * start
        if rule == "pred":
            for d in range(1, k + 2):
                if d - 1 <= last:
                    past = past + (d**alpha - (d - 1) ** alpha) * rates[k + 1 - d]
            y.append(h**alpha / (alpha * gamma(alpha)) * past)
            continue
        c = 1.0
        for d in range(1, k + 1):
            c = c * (1 - (1 + alpha) / d)
            ends = 0 if d == 1 else (d - 1.0) ** (1 - alpha)
            w = (d + 1.0) ** (1 - alpha) + ends - 2 * float(d) ** (1 - alpha)
            if d <= last:
                past = past + (c if rule == "gl" else w) * y[k + 1 - d]
        gain = h**alpha * (gamma(2 - alpha) if rule == "l1" else 1)
        y.append(gain * rates[k] - past)
    return np.array(y) + origin


@pytest.mark.parametrize("memory", [None, 5, 70])
@pytest.mark.parametrize("rule", RULES)
def test_rules_match_a_float64_loop_over_the_whole_past(rng, rule, memory):
    x, start = rng.normal(size=(150, 2, 3)), rng.normal(size=(2, 3))
    alpha = np.float32([0.3, 0.8, 1.0])
    kept = 149 if memory is None else memory
    wanted = loop(rule, alpha, x, start, 0.5, kept)
    weights = fractional_memory(rule, alpha, kept, 0.5)
    for past, block in [("fft", 16), ("direct", 16), ("fft", 64), ("direct", 200)]:
        run = jax.jit(functools.partial(solve, rate=relaxation, past=past, block=block))
        values, last = run(weights, inputs=np.float32(x), start=np.float32(start))
        # Sums of up to 150 rounded terms; measured here: below 1e-6.
        assert peak_error(values, wanted[:-1]) < 5e-6
        assert peak_error(last, wanted[-1]) < 5e-6


@pytest.mark.parametrize("rule", RULES)
def test_a_stream_of_exponentials_is_the_direct_sum(rng, rule):
    x, start = np.float32(rng.normal(size=(3000, 1, 4)) + 0.3), np.float32(rng.normal(size=(1, 4)))
    alpha = np.float32([0.1, 0.5, 0.9, 1.0])
    values, last = jax.jit(functools.partial(solve, rate=relaxation))(
        fractional_memory(rule, alpha, 2999), inputs=x, start=start
    )
    memory = stream_memory(rule, alpha)
    step = functools.partial(stream_step, memory, rate=relaxation)
    trace, streamed = jax.lax.scan(lambda t, x: step(t, x=x), start_stream(memory, start), x)
    # 1e-6 of each weight, 3e-7 of rounding a step that does not add up. Measured: below 2e-6.
    assert peak_error(streamed, values) < 1e-5
    assert peak_error(trace.v, last) < 1e-5
    # The state of a stream is all there is to a step: nothing in it grows with time.
    sizes = [leaf.size for leaf in jax.tree.leaves(trace)]
    assert sum(sizes) < 4 * 160


def test_a_short_memory_streams_exactly(rng):
    x, start = np.float32(rng.normal(size=(60, 2, 3))), np.float32(rng.normal(size=(2, 3)))
    for rule in RULES:
        memory = fractional_memory(rule, 0.6, 7)
        values, last = solve(memory, relaxation, x, start)
        stream = short_stream_memory(memory)
        step = functools.partial(stream_step, stream, rate=relaxation)
        trace, streamed = jax.lax.scan(lambda t, x: step(t, x=x), start_stream(stream, start), x)
        np.testing.assert_allclose(streamed, values, atol=2e-6)
        np.testing.assert_allclose(trace.v, last, atol=2e-6)


@pytest.mark.parametrize("rule, tolerance", [("gl", 4e-3), ("l1", 4e-3), ("pred", 4e-3)])
def test_relaxation_of_order_one_half_is_the_scaled_error_function(rule, tolerance):
    # D^(1/2) v = -v / 2, v(0) = 1 is solved by exp(t/4) erfc(sqrt(t)/2), a Mittag-Leffler function.
    h, length = 0.01, 500
    x, start = np.zeros((length, 1, 1), np.float32), np.ones((1, 1), np.float32)
    memory = fractional_memory(rule, 0.5, length, h)
    values, _ = solve(memory, relaxation, x, start)
    wanted = erfcx(np.sqrt(h * np.arange(length)) / 2)
    # Rules of first order: the error after the first steps is below h / 2, and halves with h.
    assert np.max(np.abs(values[20:, 0, 0] - wanted[20:])) < tolerance
    dropped, _ = solve(memory, relaxation, x, start, forget_start=True)
    assert np.abs(dropped[1, 0, 0]) < 0.1 and values[1, 0, 0] > 0.9


@pytest.mark.parametrize("rule", RULES)
def test_order_one_is_eulers_rule(rng, rule):
    x, start = rng.normal(size=(20, 1, 2)), rng.normal(size=(1, 2))
    v = [start]
    for current in x:
        v.append(v[-1] + 0.5 * (current - v[-1]) / 2)
    memory = fractional_memory(rule, 1.0, 19, 0.5)
    values, last = solve(memory, relaxation, np.float32(x), np.float32(start))
    np.testing.assert_allclose(jnp.concatenate([values, last[None]]), v, atol=1e-6)


def test_the_gradient_of_the_order_matches_differences(rng):
    x, weight = rng.normal(size=(40, 1, 1)), rng.normal(size=41)
    for rule in RULES:
        def loss(alpha, rule=rule):
            memory = fractional_memory(rule, alpha, 39)
            values, last = solve(memory, relaxation, np.float32(x), np.ones((1, 1)), block=8)
            return jnp.sum(weight.astype(np.float32) * jnp.append(values, last))

        sums = [
            np.sum(weight * loop(rule, alpha, x, np.ones((1, 1))).ravel())
            for alpha in (0.6001, 0.5999)
        ]
        found = jax.jit(jax.grad(loss))(0.6)
        np.testing.assert_allclose(found, (sums[0] - sums[1]) / 2e-4, rtol=1e-4)

        def stream_loss(alpha, rule=rule):
            memory = stream_memory(rule, alpha)
            step = functools.partial(stream_step, memory, rate=relaxation)
            trace, values = jax.lax.scan(
                lambda t, x: step(t, x=x), start_stream(memory, np.ones((1, 1))), np.float32(x)
            )
            return jnp.sum(weight.astype(np.float32) * jnp.append(values, trace.v))

        streamed = jax.jit(jax.grad(stream_loss))(0.6)
        np.testing.assert_allclose(streamed, found, rtol=1e-4)


@pytest.mark.parametrize("past", ["fft", "direct"])
@pytest.mark.parametrize("memory", [None, 7])
@pytest.mark.parametrize("rule", RULES)
def test_every_gradient_matches_differences(rng, rule, memory, past):
    length, kept = 21, 20 if memory is None else memory
    found_at = {
        "alpha": np.array([0.3, 0.6, 0.9]), "x": rng.normal(size=(length, 2, 3)),
        "start": rng.normal(size=(2, 3)), "tau": np.array(1.7),
    }
    weight = rng.normal(size=(length + 1, 2, 3))

    def loss(given):
        step = lambda v, x: ((x - v) / given["tau"], v)  # what the rate closes over learns, too
        weights = fractional_memory(rule, given["alpha"], kept, 0.5)
        values, last = solve(weights, step, given["x"], given["start"], past=past, block=8)
        return jnp.sum(jnp.float32(weight) * jnp.concatenate([values, last[None]]))

    found = jax.jit(jax.grad(loss))(jax.tree.map(jnp.float32, found_at))

    def moved(name, direction, by):
        given = found_at | {name: found_at[name] + by * direction}
        values = loop(rule, given["alpha"], given["x"], given["start"], 0.5, kept, False,
                      given["tau"])
        return np.sum(weight * values)

    for name, value in found_at.items():
        for _ in range(3):
            direction = rng.normal(size=value.shape)
            difference = (moved(name, direction, 1e-5) - moved(name, direction, -1e-5)) / 2e-5
            along, size = np.sum(found[name] * direction), np.sum(np.abs(found[name] * direction))
            # Float32 sums of 126 terms that may cancel; differences in float64 are exact to 1e-8.
            np.testing.assert_allclose(along, difference, atol=1e-5 * size + 1e-5)


def test_two_terms_of_one_order_are_one():
    one = fractional_memory("gl", 0.4, 30, 0.3)
    two = multi_term_memory(jnp.float32([0.4, 0.4]), jnp.float32([0.25, 0.75]), 30, 0.3)
    np.testing.assert_allclose(two.gain, one.gain, rtol=1e-6)
    np.testing.assert_allclose(two.weights, one.weights, rtol=1e-6)
    np.testing.assert_array_equal(gl_coefficients(jnp.ones(1), 4)[:, 0], [1, -1, 0, 0, 0])


def test_bad_arguments_are_refused():
    memory = fractional_memory("gl", 0.5, 3)
    with pytest.raises(ValueError, match="euler"):
        fractional_memory("euler", 0.5, 3)
    with pytest.raises(ValueError, match="order"):
        fractional_memory("gl", np.ones((2, 2)), 3)
    with pytest.raises(ValueError, match="past"):
        solve(memory, relaxation, np.ones((3, 1, 1), np.float32), np.ones((1, 1)), past="sum")
    with pytest.raises(ValueError, match="no time steps"):
        solve(memory, relaxation, np.ones((0, 1, 1), np.float32), np.ones((1, 1)))
    with pytest.raises(ValueError, match="exact"):
        stream_memory("gl", 0.5, exact=1)


# The program's recordings.


def test_step_responses_reproduce_the_program_and_what_it_should_have_been(golden):
    arrays = golden("spiking/spikede_step_response_float64.npz")
    x = np.ones((12, 1, 1), np.float32)
    for name, wanted in arrays.items():
        if "," not in name:
            continue
        method, alpha = name.removeprefix("f64/").split(",")
        rule = {"trap": "l1"}.get(method, method)
        alpha = np.float32(float(alpha))
        memory = fractional_memory(rule, alpha, 11, zero_power=True)
        values, last = solve(memory, relaxation, x, np.zeros((1, 1)))
        # Recorded are the values behind the steps.
        assert peak_error(jnp.append(values[1:], last), wanted) < 2e-6, name
    mended = fractional_memory("l1", 1.0, 11)
    values, _ = solve(mended, relaxation, x, np.zeros((1, 1)))
    np.testing.assert_allclose(values[1:4, 0, 0], [0.5, 0.75, 0.875], rtol=1e-6)


@jax.custom_jvp
def fire(drive):
    return (drive >= 0).astype(drive.dtype)


@fire.defjvp
def _fire_jvp(primals, tangents):
    # The program's arctan surrogate at scale 5: it has a factor 1/2 that its documentation omits.
    (drive,), (tangent,) = primals, tangents
    return fire(drive), tangent * 2.5 / (1 + jnp.square(2.5 * jnp.pi * drive))


def two_layers(params, x, meta):
    """Spikes and membranes of both layers, (T, B, H)."""
    h, count = meta["step"], x.shape[0] - 1
    if meta["memory"] > 0:
        count = meta["memory"] - 1
    seen = []
    for i in range(2):
        order = params[f"per_layer_alpha_params.{i}"]
        if meta["coefficients"] is not None:
            memory = multi_term_memory(order, params[f"per_layer_coefficient_params.{i}"], count, h)
        else:
            rule = {"trap": "l1", "euler": "gl"}.get(meta["method"], meta["method"])
            memory = fractional_memory(
                rule, order[0], count, h, zero_power=True, frozen_gamma=True
            )
        weight, bias = params[f"fc{i + 1}.weight"], params[f"fc{i + 1}.bias"]
        currents = jnp.matmul(x, weight.T) + bias[None, None]
        rate = lif_rate(meta["tau"], meta["threshold"], fire)
        start = jnp.zeros(currents.shape[1:], jnp.float32)
        (x, v), _ = solve(memory, rate, currents, start, forget_start=True)
        seen.append((x, v))
    return seen


@pytest.mark.parametrize("name", ["euler", "gl", "gl_memory", "l1", "trap", "pred", "multiterm"])
def test_networks_reproduce_the_recording(golden, name):
    arrays = golden(f"spiking/spikede_{name}_dev.npz")
    meta = json.loads(str(arrays["meta"]))
    params = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}

    def loss(params, x):
        seen = two_layers(params, x, meta)
        return jnp.sum(arrays["loss_weight"] * seen[1][0]), seen

    backward = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, seen), (gradients, x_bar) = backward(params, arrays["input"])
    for i, (spikes, membranes) in enumerate(seen):
        np.testing.assert_array_equal(spikes, arrays[f"spikes/{i}"])
        np.testing.assert_allclose(membranes, arrays[f"membrane/{i}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(seen[1][0], arrays["output"])
    checked = {k: v for k, v in arrays.items() if k.startswith("grad/")}
    for key, wanted in checked.items():
        # The tolerance that comes with the recordings.
        assert_close(gradients[key.removeprefix("grad/")], wanted, key)
    assert_close(x_bar, arrays["grad_input"], "input")


def assert_close(actual, wanted, name):
    bound = 1e-3 * np.max(np.abs(wanted)) + 1e-6
    assert np.max(np.abs(np.asarray(actual) - wanted)) <= bound, name


def test_the_neuron_that_resets_behind_its_step_reproduces_the_recording(golden):
    arrays = golden("spiking/spikede_neuron_fde_dev.npz")
    meta = json.loads(str(arrays["meta"]))
    memory = fractional_memory("gl", meta["beta"], meta["T"] - 1, meta["step"])

    def settle(c):
        spikes = fire(c - 1)
        v = c - jax.lax.stop_gradient(spikes)
        return v, (spikes, v)

    def loss(x):
        def rate(v, current):
            return (current - v) / meta["tau"], ()

        start = jnp.zeros(x.shape[1:], jnp.float32)
        (_, (spikes, v)), _ = solve(memory, rate, x, start, settle=settle)
        return jnp.sum(arrays["loss_weight"] * spikes), (spikes, v)

    (_, (spikes, v)), x_bar = jax.value_and_grad(loss, has_aux=True)(arrays["input"])
    np.testing.assert_array_equal(spikes, arrays["spikes/0"])
    np.testing.assert_allclose(v, arrays["membrane"], rtol=1e-4, atol=1e-5)
    assert_close(x_bar, arrays["grad_input"], "input")
