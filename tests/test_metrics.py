"""Metrics: sums that merge to what all values at once would give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.training import losses, metrics


def test_sums_merge_to_the_moments_of_all_values(rng):
    values = rng.normal(3, 2, size=1000).astype(np.float32)
    total = None
    for part in np.split(values, [10, 500, 501]):
        one = metrics.sums(jnp.asarray(part), jnp.ones(len(part), bool))
        total = metrics.merge(total, jax.device_get(one))
    wide = values.astype(np.float64)
    # Parts are summed in float32: 500 roundings of 6e-8 at worst.
    np.testing.assert_allclose(metrics.mean(total), wide.mean(), rtol=3e-5)
    expected = wide.std(ddof=1) / np.sqrt(1000)
    np.testing.assert_allclose(metrics.standard_error(total), expected, rtol=3e-4)


def test_sums_leave_out_what_does_not_count():
    one = jax.device_get(metrics.sums(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([1, 0, 1], bool)))
    assert metrics.mean(one) == 2 and one["count"] == 2


def test_mean_of_nothing_is_nan():
    one = jax.device_get(metrics.sums(jnp.ones(2), jnp.zeros(2, bool)))
    assert np.isnan(metrics.mean(one)) and np.isnan(metrics.standard_error(one))


def test_share_gives_the_binomial_standard_error():
    one = jax.device_get(metrics.share(jnp.float32(30), jnp.float32(120)))
    assert metrics.mean(one) == 0.25
    # Exact sums: only the float64 square root rounds.
    np.testing.assert_allclose(
        metrics.standard_error(one), np.sqrt(0.25 * 0.75 / 119), rtol=1e-12
    )


def test_prediction_metrics_ignore_label_minus_one():
    logits = jnp.array([[2.0, 0.0], [2.0, 0.0], [jnp.nan, jnp.nan]])
    labels = jnp.array([0, 1, -1])
    example_losses = losses.cross_entropy(logits, labels)
    measured = jax.device_get(metrics.prediction_metrics(logits, labels, example_losses))
    expected = np.log1p(np.exp([-2.0, 2.0])).mean()
    # Float32 logarithms of numbers near 1.
    np.testing.assert_allclose(metrics.mean(measured["loss"]), expected, rtol=1e-6)
    assert metrics.mean(measured["accuracy"]) == 0.5 and measured["loss"]["count"] == 2


def test_cross_entropy_has_no_gradient_where_there_is_no_example():
    logits = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    gradient = jax.grad(lambda x: jnp.sum(losses.cross_entropy(x, jnp.array([0, -1]))))(logits)
    assert np.all(np.isfinite(gradient)) and np.all(gradient[1] == 0)


def make_aux(spikes, mask, p=None):
    """Count (layers, B, L, H) spikes over a mask (B, L), in NumPy."""
    spikes = spikes * mask[None, ..., None]
    p = spikes if p is None else p * mask[None, ..., None]
    layers, _, _, features = spikes.shape
    return {
        "spikes": jnp.asarray(spikes.sum((1, 2, 3)), jnp.float32),
        "probability": jnp.asarray(p.sum((1, 2, 3)), jnp.float32),
        "steps": jnp.full(layers, mask.sum()),
        "neurons": jnp.full(layers, features),
        "fan_out": jnp.full(layers, 1),
        "neuron_spikes": jnp.asarray(spikes.sum((1, 2)), jnp.float32),
        "surrogate": jnp.asarray(spikes.sum((1, 2, 3)) * 0.5, jnp.float32),
    }


def test_activity_metrics_count_spikes_and_neurons(rng):
    spikes = (rng.random((2, 3, 5, 4)) < 0.5).astype(np.float64)
    mask = np.arange(5)[None, :] < np.array([5, 3, 1])[:, None]
    spikes[0, :, :, 0] = 0  # dead
    spikes[1, :, :, 1:3] = 1  # saturated
    spikes[0, 1, 4, 0] = 1  # in the padding: does not revive it
    aux = {"input": make_aux(spikes, mask), "output": make_aux(spikes[..., :2], mask)}
    measured = jax.device_get(metrics.activity_metrics(aux))
    valid = spikes[:, mask]  # (layers, 9, H)
    rate = (valid.sum() + valid[..., :2].sum()) / (valid.size + valid[..., :2].size)
    # Sums of small integers are exact; one float64 division each.
    np.testing.assert_allclose(metrics.mean(measured["firing_rate"]), rate, rtol=1e-12)
    np.testing.assert_allclose(metrics.mean(measured["surrogate"]), rate / 2, rtol=1e-12)
    np.testing.assert_allclose(metrics.mean(measured["dead"]), 2 / 12, rtol=1e-7)
    np.testing.assert_allclose(metrics.mean(measured["saturated"]), 3 / 12, rtol=1e-7)


def test_activity_metrics_are_empty_without_spikes():
    assert metrics.activity_metrics({}) == {}


def test_firing_rate_penalty_acts_above_the_target_alone():
    spikes = np.stack([np.full((2, 5, 4), 0.0), np.full((2, 5, 4), 1.0)])
    p = np.stack([np.full((2, 5, 4), 0.2), np.full((2, 5, 4), 0.6)])
    aux = {"input": make_aux(spikes, np.ones((2, 5), bool), p)}
    penalty = losses.firing_rate_penalty(aux, 0.5)
    # Rates 0.2 and 0.6: (0 + 0.1^2) / 2; float32 rounds 0.6 - 0.5 to 6e-8 in 0.1.
    assert penalty == pytest.approx(0.005, rel=2e-6)
    assert losses.firing_rate_penalty({}, 0.5) == 0


def test_firing_rate_penalty_pushes_probabilities_down():
    aux = {"input": make_aux(np.zeros((1, 2, 5, 4)), np.ones((2, 5), bool))}

    def penalty(probability):
        return losses.firing_rate_penalty({"input": aux["input"] | {"probability": probability}}, 0)

    # d/dP (P / 40)^2 at P = 20 is 2 * 20 / 1600; two float32 roundings.
    gradient = jax.grad(penalty)(jnp.array([20.0]))
    np.testing.assert_allclose(gradient, 0.025, rtol=1e-6)
