"""Energy against closed forms worked out by hand."""

import numpy as np
import pytest

from pspike_jax.analysis import costs, energy

# Two layers of 4 neurons, 3 examples of 10 steps. Input: 16 operations a spike, 12 and 6 spikes.
# Output: 4 operations a spike, 30 and 0 spikes.
SITES = {
    "input": {"spikes": [12.0, 6.0], "steps": [30.0, 30.0], "neurons": [4.0, 4.0],
              "fan_out": [16.0, 16.0]},
    "output": {"spikes": [30.0, 0.0], "steps": [30.0, 30.0], "neurons": [4.0, 4.0],
               "fan_out": [4.0, 4.0]},
}
MACS = {"encoder": 120.0, "head": 45.0, "dense": 15.0, "state": 3000.0}
AUX = {"sites": SITES, "losses": {}, "macs": MACS}
NOTHING = dict.fromkeys(MACS, 0.0)


def test_estimate_energy_counts_operations_per_example():
    found = energy.estimate_energy(AUX, examples=3)
    assert found.synaptic_ops == (16 * 18 + 4 * 30) / 3
    assert found.dense_macs == 10 * 4 * 2 * (16 + 4)
    assert (found.encoder_macs, found.head_macs, found.real_macs) == (40, 15, 5)
    assert found.state_macs == 1000 and found.real_products == 60


def test_energy_without_state_updates_is_accumulates_against_multiply_accumulates():
    found = energy.estimate_energy(AUX, examples=3)
    # One rounding per operation of float64.
    np.testing.assert_allclose(found.spiking(state_updates=False), 0.9 * 136 + 4.6 * 60, rtol=1e-15)
    np.testing.assert_allclose(found.dense(state_updates=False), 4.6 * (1600 + 60), rtol=1e-15)


def test_energy_with_state_updates_adds_the_same_to_both():
    found = energy.estimate_energy(AUX, examples=3)
    for side in (found.spiking, found.dense):
        # 4.6 pJ for each of 1,000; the difference of numbers near 1e4 keeps 12 digits.
        np.testing.assert_allclose(
            side(state_updates=True) - side(state_updates=False), 4600, rtol=1e-12
        )


def test_ratio_is_the_dense_energy_over_the_spiking_one():
    found = energy.estimate_energy(AUX, examples=3)
    np.testing.assert_allclose(found.ratio(state_updates=False), 7636 / 398.4, rtol=1e-14)
    np.testing.assert_allclose(found.ratio(state_updates=True), 12236 / 4998.4, rtol=1e-14)


def test_ratio_at_full_firing_and_nothing_else_is_that_of_one_operation():
    sites = {"input": SITES["input"] | {"spikes": [120.0, 120.0]}}
    found = energy.estimate_energy({"sites": sites, "macs": NOTHING}, examples=3)
    np.testing.assert_allclose(found.ratio(state_updates=False), 4.6 / 0.9, rtol=1e-15)


def test_ratio_of_a_silent_model_is_infinite():
    sites = {"input": SITES["input"] | {"spikes": [0.0, 0.0]}}
    found = energy.estimate_energy({"sites": sites, "macs": NOTHING}, examples=3)
    assert found.ratio(state_updates=False) == float("inf")


def test_estimate_energy_does_not_depend_on_how_examples_are_batched():
    doubled = {
        site: fields | {name: 2 * np.asarray(fields[name]) for name in ("spikes", "steps")}
        for site, fields in SITES.items()
    }
    aux = {"sites": doubled, "macs": {name: 2 * value for name, value in MACS.items()}}
    assert energy.estimate_energy(aux, examples=6) == energy.estimate_energy(AUX, examples=3)


def test_estimate_energy_counts_float32_aux_in_float64():
    # 2^24 + 1 operations: a float32 product or sum would drop the 1.
    fields = {"spikes": np.array([2.0**24, 1], np.float32), "steps": np.ones(2, np.float32),
              "neurons": np.ones(2, np.float32), "fan_out": np.ones(2, np.float32)}
    found = energy.estimate_energy({"sites": {"input": fields}, "macs": NOTHING}, examples=1)
    assert found.synaptic_ops == 2**24 + 1


def test_estimate_energy_names_a_count_without_examples():
    with pytest.raises(ValueError, match="examples is 0, expected at least 1"):
        energy.estimate_energy(AUX, examples=0)


def test_memory_makes_every_word_cost_and_spikes_move_more_of_them():
    found = energy.estimate_energy(AUX, examples=3)
    given = {"state_updates": True, "cost": costs.COSTS["memory of 32 kB"]}
    # An addition 0.9 + 3 x 10 pJ, a product 4.6 + 2 x 10, one of a state 4.6 + 8 / 6 x 10.
    shared = 60 * 24.6 + 1000 * (4.6 + 80 / 6)
    np.testing.assert_allclose(found.spiking(**given), 136 * 30.9 + shared, rtol=1e-14)
    np.testing.assert_allclose(found.dense(**given), 1600 * 24.6 + shared, rtol=1e-14)


def test_synapses_alone_leave_out_what_both_share():
    found = energy.estimate_energy(AUX, examples=3)
    given = {"state_updates": True, "cost": costs.COSTS["synaptic operations"]}
    np.testing.assert_allclose(found.ratio(**given), 1600 * 4.6 / (136 * 0.9), rtol=1e-14)


@pytest.mark.parametrize("name", costs.COSTS)
def test_at_the_crossover_spikes_cost_what_real_numbers_do(name):
    cost = costs.COSTS[name]
    rates = costs.crossover_rates(SITES, cost)
    for site, fields in SITES.items():
        fan_out = fields["fan_out"][0]
        # One neuron, one step: its spikes and a comparison, or a real number to each synapse.
        spiking = rates[site][0] * fan_out * cost.per_spike + cost.accumulate
        np.testing.assert_allclose(spiking, fan_out * cost.per_product, rtol=1e-14)
    # Without memory (4.6 x 16 - 0.9) / (0.9 x 16) > 1: spikes always pay.
    assert (rates["input"][0] > 1) == (name in ("operations", "synaptic operations"))
    silent = {"site": {"fan_out": [0.0]}}
    assert costs.crossover_rates(silent, cost)["site"] == [0.0]


def test_neurobench_names_what_was_counted():
    found = energy.estimate_energy(AUX, examples=3)
    params = {"kernel": np.float32([[0, 1], [2, 0], [3, 4]]), "bias": np.zeros(2, np.float32)}
    assert costs.neurobench(found, SITES, params) == {
        "Footprint": 8 * 4,
        "ConnectionSparsity": 2 / 6,
        "ActivationSparsity": 1 - 48 / (4 * 30 * 4),
        "SynapticOperations": {"Effective_MACs": 60, "Effective_ACs": 136, "Dense": 1660},
    }
