"""The penalty on firing rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.training.state import firing_rate_penalty


def make_counts(probability, features=4, steps=10):
    """Counts of a site whose layers fire with given probabilities."""
    probability = jnp.asarray(probability, jnp.float32)
    return {
        "probability": probability * steps * features,
        "steps": jnp.full(len(probability), steps, jnp.float32),
        "neurons": jnp.full(len(probability), features, jnp.float32),
    }


def test_firing_rate_penalty_acts_above_the_target_alone():
    penalty = firing_rate_penalty({"input": make_counts([0.2, 0.6])}, 0.5)
    # Rates 0.2 and 0.6: (0 + 0.1^2) / 2; float32 rounds 0.6 - 0.5 to 6e-8 in 0.1.
    assert penalty == pytest.approx(0.005, rel=2e-6)
    assert firing_rate_penalty({}, 0.5) == 0


def test_firing_rate_penalty_counts_more_steps_than_32_bits_hold():
    site = make_counts([0.6], features=2**13, steps=2**20)  # 2^33 neuron-steps
    site |= {name: site[name].astype(jnp.int32) for name in ("steps", "neurons")}
    penalty = firing_rate_penalty({"input": site}, 0.5)
    assert penalty == pytest.approx(0.01, rel=2e-6)  # as above


def test_firing_rate_penalty_pushes_probabilities_down():
    site = make_counts([0.0])

    def penalty(probability):
        return firing_rate_penalty({"input": site | {"probability": probability}}, 0)

    # d/dP (P / 40)^2 at P = 20 is 2 * 20 / 1600; two float32 roundings.
    gradient = jax.grad(penalty)(jnp.array([20.0]))
    np.testing.assert_allclose(gradient, 0.025, rtol=1e-6)
