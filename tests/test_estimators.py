"""Estimators of gradients through stochastic spikes, against enumeration of all spikes."""

import functools
import itertools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from experiments import estimators as laboratory  # noqa: E402
from pspike_jax.functional.estimators import ESTIMATORS, score_loss, stochastic_spikes  # noqa: E402
from pspike_jax.functional.surrogates import SURROGATES  # noqa: E402

P = np.array([0.15, 0.5, 0.8], np.float32)
DRAWS = 40_000
SURE = 4.9  # standard errors: one of the comparisons here fails by chance in a million


def quadratic(spikes):
    """A loss that is not linear in the spikes."""
    return jnp.square(spikes @ jnp.float32([1.0, -2.0, 3.0]) - 0.5) + spikes[0] * spikes[2]


def exact(loss, p):
    """Differentiate sum_s P(s) loss(s) over all spikes, in float64."""
    bar = np.zeros(len(p))
    for spikes in itertools.product((0.0, 1.0), repeat=len(p)):
        value = float(loss(jnp.float32(spikes)))
        q = np.where(spikes, np.float64(p), 1 - np.float64(p))
        signs = np.where(spikes, 1.0, -1.0)
        bar += value * signs * np.prod(q) / q
    return bar


@functools.partial(jax.jit, static_argnames=("loss", "estimator"))
def estimates(loss, estimator, p, baseline):
    """Return (DRAWS, n) single estimates of the gradient."""

    def one(uniform):
        def objective(p):
            drawn = stochastic_spikes(p, uniform, estimator)
            return score_loss(loss(drawn.values), jnp.sum(drawn.log_probability), baseline)

        return jax.grad(objective)(p)

    return jax.vmap(one)(jax.random.uniform(jax.random.key(0), (DRAWS, *p.shape)))


def error_of_mean(draws):
    return draws.std(axis=0) / DRAWS**0.5 + 1e-6  # float32 sums


@pytest.mark.parametrize("baseline", [0.0, 4.0])
def test_reinforce_has_no_bias_whatever_its_baseline(baseline):
    draws = np.float64(estimates(quadratic, "reinforce", P, baseline))
    assert (np.abs(draws.mean(0) - exact(quadratic, P)) < SURE * error_of_mean(draws)).all()


def test_a_baseline_takes_variance_away():
    spread = {b: np.std(estimates(quadratic, "reinforce", P, b), axis=0) for b in (0.0, 4.0)}
    assert (spread[4.0] < spread[0.0]).all()


def test_straight_through_has_a_bias_on_curved_losses_and_none_on_linear_ones():
    linear = lambda spikes: spikes @ jnp.float32([1.0, -2.0, 3.0])
    draws = np.float64(estimates(linear, "clamp_straight_through", P, 0.0))
    np.testing.assert_array_equal(draws, np.broadcast_to([1.0, -2.0, 3.0], draws.shape))
    draws = np.float64(estimates(quadratic, "clamp_straight_through", P, 0.0))
    bias = draws.mean(0) - exact(quadratic, P)
    # The expected slope at a spike is that at the mean of 0 and 1 weighted by p, not at 1/2: for
    # w^2 s^2 it is 2 w^2 p where the difference of the loss is w^2.
    expected = np.array([1.0, 4.0, 9.0]) * (2 * P - 1)
    assert (np.abs(bias - expected) < SURE * error_of_mean(draws)).all()
    assert np.abs(expected).max() > 100 * error_of_mean(draws).max()


def test_expectation_is_exact_for_losses_linear_in_each_spike():
    product = lambda spikes: spikes[0] * spikes[1] - 2 * spikes[2]
    draws = np.asarray(estimates(product, "expectation", P, 0.0))
    np.testing.assert_allclose(draws[0], exact(product, P), rtol=1e-6)
    np.testing.assert_array_equal(draws, np.broadcast_to(draws[0], draws.shape))


def test_logistic_spikes_fire_as_hard_ones_and_learn_as_soft_ones():
    p, u = np.float32([0.2, 0.7, 0.4]), np.float32([0.1, 0.9, 0.3])
    run = lambda name: jax.value_and_grad(
        lambda p: jnp.sum(stochastic_spikes(p, u, name, temperature=0.3).values)
    )(p)
    soft, slope = run("logistic")
    hard, same = run("logistic_hard")
    x = (np.log(p / (1 - p)) - np.log(u / (1 - u))) / 0.3
    sigmoid = 1 / (1 + np.exp(-np.float64(x)))
    np.testing.assert_allclose(soft, sigmoid.sum(), rtol=1e-5)
    np.testing.assert_allclose(slope, sigmoid * (1 - sigmoid) / 0.3 / (p * (1 - p)), rtol=1e-4)
    assert hard == 2.0
    np.testing.assert_array_equal(same, slope)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_certain_spikes_have_finite_gradients(name):
    p, u = jnp.float32([0.0, 1.0, -0.5, 1.5]), jnp.float32([0.0, 0.999, 0.5, 0.5])

    def objective(p):
        drawn = stochastic_spikes(p, u, name)
        return score_loss(jnp.sum(drawn.values), jnp.sum(drawn.log_probability)), drawn

    bar, drawn = jax.grad(objective, has_aux=True)(p)
    assert np.isfinite(bar).all()
    if name in SURROGATES or name in ("reinforce", "logistic_hard"):
        np.testing.assert_array_equal(drawn.values, [0, 1, 0, 1])


def test_what_is_no_estimator_is_named():
    p = jnp.float32([0.5])
    with pytest.raises(ValueError, match="estimator is 'gumbel'; expected one of"):
        stochastic_spikes(p, p, "gumbel")
    with pytest.raises(ValueError, match="temperature is 0"):
        stochastic_spikes(p, p, "logistic", temperature=0)
    with pytest.raises(ValueError, match=r"uniform has shape \(2,\); expected \(1,\)"):
        stochastic_spikes(p, jnp.zeros(2), "reinforce")


def test_the_laboratory_enumerates_what_it_draws():
    """The mean loss of many draws is the sum over all spikes, and REINFORCE's gradient its own."""
    params, x, target = laboratory.initial(0)
    exact_loss, gradient = jax.value_and_grad(laboratory.expected_loss)(params, x, target)

    def one(key):
        draw = functools.partial(laboratory.drawn_loss, estimator="reinforce", baseline=exact_loss)
        loss, bar = jax.value_and_grad(draw)(params, x, target, key)
        return loss, laboratory.flat(bar)

    keys = jax.random.split(jax.random.key(7), DRAWS)
    losses, bars = map(np.float64, jax.jit(jax.vmap(one))(keys))
    assert abs(losses.mean() - exact_loss) < SURE * error_of_mean(losses)
    error = np.abs(bars.mean(0) - np.float64(laboratory.flat(gradient)))
    assert (error < SURE * error_of_mean(bars)).all()


def test_committed_page_of_estimators_is_that_of_the_record():
    record = json.loads(laboratory.RECORD.read_text())
    assert laboratory.RECORD.with_suffix(".md").read_text() == laboratory.page(record)
    assert set(record["rows"]) == set(ESTIMATORS) - set(laboratory.LEFT_OUT)
