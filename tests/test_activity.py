"""Activity against counts done by hand and by loops over elements."""

import weakref

import numpy as np
import pytest

from pspike_jax.analysis import activity

LENGTHS = np.array([3, 5])
MASK = np.arange(5) < LENGTHS[:, None]  # (B, L)


def site(spikes, probability, lengths=None):
    """Count one site as the contract of `aux` says, element by element."""
    layers, examples, length, neurons = spikes.shape
    lengths = [length] * examples if lengths is None else lengths
    counts = {"spikes": np.zeros(layers), "probability": np.zeros(layers),
              "neuron_spikes": np.zeros((layers, neurons)), "surrogate": np.zeros(layers)}
    for layer, example in np.ndindex(layers, examples):
        for step in range(lengths[example]):
            for neuron in range(neurons):
                p = probability[layer, example, step, neuron]
                counts["spikes"][layer] += spikes[layer, example, step, neuron]
                counts["probability"][layer] += p
                counts["neuron_spikes"][layer, neuron] += spikes[layer, example, step, neuron]
                counts["surrogate"][layer] += 0 < p < 1
    counts = {name: value.astype(np.float32) for name, value in counts.items()}
    return counts | {"steps": np.full(layers, sum(lengths), np.float32),
                     "neurons": np.full(layers, neurons, np.float32),
                     "fan_out": np.full(layers, 7.0, np.float32)}


@pytest.fixture
def arrays(rng):
    """Spikes and probabilities (2, 2, 5, 4); neuron 0 never fires, neuron 1 always does."""
    probability = rng.uniform(0, 1, (2, 2, 5, 4))
    probability[..., 0], probability[..., 1] = 0, 1
    return (probability > rng.uniform(0, 1, (2, 2, 5, 4))).astype(np.float32), probability


def test_summarize_gives_the_shares_of_a_case_done_by_hand():
    # 10 steps, 4 neurons: 40 elements; neurons 1 and 4 silent, neuron 2 always firing.
    aux = {"input": {"spikes": [13.0], "probability": [10.0], "steps": [10.0], "neurons": [4.0],
                     "fan_out": [1.0], "neuron_spikes": [[0.0, 10.0, 3.0, 0.0]],
                     "surrogate": [4.0]}}
    found = activity.summarize(aux)["input"]
    shares = [found.firing_rate, found.probability, found.dead, found.saturated, found.surrogate]
    np.testing.assert_array_equal(np.concatenate(shares), [13 / 40, 10 / 40, 2 / 4, 1 / 4, 4 / 40])


def test_summarize_of_a_model_without_spikes_is_empty():
    assert activity.summarize({}) == {}


def test_summarize_names_a_site_without_valid_steps(arrays):
    counts = site(*arrays) | {"steps": np.zeros(2)}
    with pytest.raises(ValueError, match="'input' counts .* expected at least 1"):
        activity.summarize({"input": counts})


def aux(sites, **macs):
    return {"sites": sites, "losses": {}, "macs": macs}


def test_merge_aux_equals_the_counts_of_one_batch(arrays):
    spikes, probability = arrays
    parts = [
        aux(
            {"input": site(spikes[:, i : i + 1], probability[:, i : i + 1])},
            head=np.float32(i + 2),
        )
        for i in (0, 1)
    ]
    merged = activity.merge_aux(parts)
    assert merged["macs"] == {"head": 5.0} and merged["losses"] == {}
    for name, expected in site(spikes, probability).items():
        # Counts are exact; the sum of probabilities is rounded to float32 in each part.
        np.testing.assert_allclose(
            merged["sites"]["input"][name], expected, rtol=3e-7, err_msg=name
        )


def test_merge_aux_counts_beyond_the_integers_of_float32():
    # 2^24 + 1 is no float32: sums of many batches must not stay in the model's precision.
    counts = dict.fromkeys(activity.SUMS + activity.SIZES, np.ones(1, np.float32))
    large = counts | {"spikes": np.full(1, 2.0**24, np.float32)}
    parts = [aux({"input": large}, state=np.float32(2.0**24)), aux({"input": counts}, state=1)]
    merged = activity.merge_aux(parts)
    assert merged["sites"]["input"]["spikes"].tolist() == [2**24 + 1]
    assert merged["macs"]["state"] == 2**24 + 1


def test_merge_aux_keeps_none_of_its_parts(arrays):
    alive = []

    def parts():
        for _ in range(5):
            captured = site(*arrays) | {"spike_array": np.zeros(10)}
            alive.append(weakref.ref(captured["spike_array"]))
            yield aux({"input": captured})
            del captured
            assert sum(one() is not None for one in alive[:-1]) == 0

    assert "spike_array" not in activity.merge_aux(parts())["sites"]["input"]


def test_merge_aux_of_models_without_spikes_has_no_sites():
    merged = activity.merge_aux([aux({}, head=1), aux({}, head=2)])
    assert merged == {"sites": {}, "losses": {}, "macs": {"head": 3.0}}


@pytest.mark.parametrize("second, message", [
    ({}, "sites"),
    ({"input": {"fan_out": np.full(2, 9.0)}}, "fan_out of site 'input'"),
])
def test_merge_aux_refuses_the_aux_of_another_model(arrays, second, message):
    first = site(*arrays)
    second = {name: first | fields for name, fields in second.items()}
    with pytest.raises(ValueError, match=message):
        activity.merge_aux([aux({"input": first}), aux(second)])


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_active_ratio_is_the_mean_over_valid_examples(arrays, lengths):
    spikes, _ = arrays
    found = activity.active_ratio(spikes, lengths)
    for layer, step in np.ndindex(2, 5):
        valid = [b for b in range(2) if lengths is None or step < lengths[b]]
        fired = sum(spikes[layer, b, step].sum() for b in valid)
        # Sums of a few small integers, divided once or twice: a few ulps of float64.
        np.testing.assert_allclose(found[layer, step], fired / (4 * len(valid)), rtol=1e-14)


def test_active_ratio_is_nan_past_the_longest_example(arrays):
    found = activity.active_ratio(arrays[0], np.array([3, 2]))
    np.testing.assert_array_equal(np.isnan(found), [[False] * 3 + [True] * 2] * 2)


def test_active_ratio_averages_to_the_firing_rate_without_padding(arrays):
    spikes, probability = arrays
    rate = activity.summarize({"input": site(spikes, probability)})["input"].firing_rate
    np.testing.assert_allclose(activity.active_ratio(spikes).mean(axis=1), rate, rtol=1e-14)


def test_valid_values_are_those_that_are_not_padding(arrays):
    _, probability = arrays
    found = activity.valid_values(probability, LENGTHS)
    for layer in range(2):
        expected = [probability[layer, b, t] for b in range(2) for t in range(LENGTHS[b])]
        np.testing.assert_array_equal(found[layer], np.concatenate(expected))


def test_neuron_trace_takes_one_neuron_and_cuts_its_padding(arrays):
    spikes, probability = arrays
    s, p = activity.neuron_trace(spikes, probability, layer=1, example=0, neuron=2, lengths=LENGTHS)
    np.testing.assert_array_equal(s, spikes[1, 0, :3, 2])
    np.testing.assert_array_equal(p, probability[1, 0, :3, 2])


def test_valid_steps_names_lengths_out_of_range():
    with pytest.raises(ValueError, match=r"\[0 5\] are not all between 1 and 5"):
        activity.valid_steps(np.array([0, 5]), (2, 5))
    with pytest.raises(ValueError, match="are not all between 1 and 4"):
        activity.valid_steps(LENGTHS, (2, 4))


def test_captured_arrays_must_have_four_axes():
    with pytest.raises(ValueError, match=r"\(2, 5, 4\), expected \(layers, B, L, H\)"):
        activity.active_ratio(np.zeros((2, 5, 4)))


@pytest.mark.parametrize("bandwidth", [0.005, 0.05, 0.2])
def test_probability_density_is_the_sum_of_reflected_kernels(rng, bandwidth):
    values = np.concatenate([np.zeros(30), np.ones(3), rng.uniform(0, 1, 20)])
    grid = np.linspace(0, 1, 23)
    expected = [
        sum(
            sum(np.exp(-abs(x - center) / bandwidth) for center in (v, -v, 2 - v))
            for v in values
        ) / (2 * bandwidth * len(values))
        for x in grid
    ]
    # exp(1 / h) exp(-1 / h) is rounded in its exponent: up to 200 ulps at h = 0.005.
    np.testing.assert_allclose(
        activity.probability_density(values, grid, bandwidth), expected, rtol=1e-12
    )


def test_probability_density_integrates_to_one_though_values_sit_at_the_ends(rng):
    values = np.concatenate([np.zeros(900), np.ones(10), rng.beta(0.3, 3, 90)])
    grid = np.linspace(0, 1, 20001)
    total = np.trapezoid(activity.probability_density(values, grid, 0.02), grid)
    # Trapezoids of width d at a kernel of width h err by (d / h)^2 / 12 = 5e-7.
    np.testing.assert_allclose(total, 1, rtol=1e-6)


@pytest.mark.parametrize("values, bandwidth, message", [
    ([0.5], 0.001, "bandwidth is 0.001"),
    ([0.5, 1.5], 0.02, "must be at least one number, and all in"),
    ([np.nan], 0.02, "must be at least one number, and all in"),
    ([], 0.02, "must be at least one number, and all in"),
])
def test_probability_density_refuses_what_is_no_probability(values, bandwidth, message):
    with pytest.raises(ValueError, match=message):
        activity.probability_density(np.array(values), np.linspace(0, 1, 5), bandwidth)
