"""Metrics: sums that merge to what all values at once would give."""

import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.objectives import metrics


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


def test_mean_over_steps_has_the_error_of_a_ratio_over_examples(rng):
    values = rng.normal(2, 1, size=(60, 7)) + rng.normal(0, 1, size=(60, 1))
    valid = np.arange(7) < rng.integers(0, 8, size=(60, 1))
    total = None
    for rows in np.split(np.arange(60), [20, 37]):
        one = metrics.mean_over_steps(jnp.asarray(values[rows], jnp.float32), valid[rows])
        total = metrics.merge(total, jax.device_get(one))
    center = values[valid].mean()
    # Float32 sums of 60 examples; their squares leave half of what is subtracted.
    np.testing.assert_allclose(metrics.mean(total), center, rtol=1e-6)
    lengths = valid.sum(axis=1)
    apart = np.where(valid, values - center, 0).sum(axis=1)
    examples = (lengths > 0).sum()
    expected = np.sqrt(examples / (examples - 1) * (apart**2).sum()) / lengths.sum()
    np.testing.assert_allclose(metrics.standard_error(total), expected, rtol=1e-5)
    # Steps of an example share its offset: taken for independent, they would promise more.
    assert expected > 1.5 * values[valid].std(ddof=1) / np.sqrt(valid.sum())


def test_examples_that_hardly_differ_still_have_an_error(rng):
    values = rng.random((40, 16_384)) < 0.999  # about 16 misses an example
    total = None
    for rows in np.split(np.arange(40), 4):
        one = metrics.mean_over_steps(jnp.asarray(values[rows]), jnp.ones((10, 16_384), bool))
        total = metrics.merge(total, jax.device_get(one))
    expected = values.mean(axis=1).std(ddof=1) / np.sqrt(40)
    # Misses differ by about 4, and 16,384 times the center is rounded to 1e-3.
    np.testing.assert_allclose(metrics.standard_error(total), expected, rtol=1e-3)


def test_mean_over_steps_of_one_step_is_a_mean_of_values(rng):
    values = rng.normal(3, 2, size=(200, 1)).astype(np.float32)
    one = jax.device_get(metrics.mean_over_steps(jnp.asarray(values), jnp.ones((200, 1), bool)))
    wide = values.astype(np.float64)
    np.testing.assert_allclose(metrics.mean(one), wide.mean(), rtol=1e-6)
    expected = wide.std(ddof=1) / np.sqrt(200)
    np.testing.assert_allclose(metrics.standard_error(one), expected, rtol=1e-5)


def test_a_ratio_over_nothing_has_no_mean():
    one = metrics.ratio(jnp.array([1.0, -2.0]), jnp.zeros(2), jnp.ones(2, bool))
    assert np.isnan(metrics.mean(jax.device_get(one)))


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


def test_activity_metrics_count_more_steps_than_32_bits_hold():
    site = {
        "spikes": jnp.full(2, 2.0**31),
        "surrogate": jnp.full(2, 2.0**32),
        "steps": jnp.full(2, 2**20),  # 2^33 neuron-steps a layer
        "neurons": jnp.full(2, 2**13),
        "neuron_spikes": jnp.full((2, 2**13), 2.0**18),
    }
    measured = jax.device_get(metrics.activity_metrics({"site": site}))
    # Powers of two: exact.
    assert measured["firing_rate"]["count"] == 2.0**34
    assert metrics.mean(measured["firing_rate"]) == 0.25
    assert metrics.mean(measured["surrogate"]) == 0.5
    assert metrics.mean(measured["saturated"]) == 0 and metrics.mean(measured["dead"]) == 0


def test_activity_metrics_are_empty_without_spikes():
    assert metrics.activity_metrics({}) == {}
