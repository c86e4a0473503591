"""Energy against closed forms worked out by hand."""

import numpy as np
import pytest

from pspike_jax.analysis import energy

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
