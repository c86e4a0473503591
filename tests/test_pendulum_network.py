"""Pendulum neurons as a network: the author's scheme, accuracy, the limit of small swings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional.neurons import Pendulum, initial_state, small_swing_poles, unroll
from pspike_jax.functional.oscillator import Oscillators, discretize_oscillators
from pspike_jax.functional.pendulum import author_scheme, pendulum
from pspike_jax.functional.pendulum_drive import constant_drive


def run(neuron, currents, params=None):
    params = neuron.init(jax.random.key(0), currents.shape[-1]) if params is None else params
    state = initial_state(neuron, *currents.shape[1:])
    return unroll(neuron, neuron.coefficients(params), jnp.asarray(currents, jnp.float32), state)


def test_the_authors_scheme_is_that_of_the_functional_core(rng):
    currents = rng.normal(1.2, 0.6, size=(300, 2, 3)).astype(np.float32)
    spikes, _, _ = run(Pendulum(accurate=False), currents)
    # The core's first entry is not used, and its first state is given.
    wanted, _, _ = author_scheme(np.concatenate([currents[:1], currents]))
    np.testing.assert_array_equal(spikes, wanted[1:])
    assert np.sum(spikes) > 20


def test_accurate_neurons_fire_in_the_steps_in_which_the_solution_does(rng):
    currents = rng.normal(1.2, 0.6, size=(80, 1, 4)).astype(np.float32)
    neuron = Pendulum(gamma=0.1, dt=0.4)
    spikes, _, _ = run(neuron, currents)
    solution, _, _ = pendulum(constant_drive(currents), 0.1, 1.0, 0.4)
    np.testing.assert_array_equal(spikes, np.any(solution.fired, axis=1))
    assert np.sum(spikes) > 20
    with pytest.raises(ValueError, match="fires at pi"):
        Pendulum(threshold=1.0)


def test_small_swings_are_the_damped_oscillator_of_the_zoo(rng):
    currents = (1e-3 * rng.normal(size=(60, 1, 2))).astype(np.float32)
    neuron = Pendulum(gamma=0.3, omega0=1.2, dt=0.4)
    params = neuron.init(jax.random.key(0), 2)
    _, _, state = run(neuron, currents, params)
    values = (jnp.float32([v]) for v in (1.2**2, 0.3, 0.4))
    transition, gain = discretize_oscillators(Oscillators(*values), "zoh")
    x = np.zeros((2, 2))  # (velocity, angle)
    for current in currents[:, 0].astype(np.float64):
        x = x @ np.asarray(transition[0], float).T + current[:, None] * np.asarray(gain[0])
    theta, omega = (np.asarray(part)[0] for part in state.membrane[:2])
    np.testing.assert_allclose(theta, x[:, 1], atol=1e-5 * np.abs(x).max())
    np.testing.assert_allclose(omega, x[:, 0], atol=1e-5 * np.abs(x).max())
    poles = np.linalg.eigvals(np.asarray(transition[0], float))
    found = np.asarray(small_swing_poles(neuron, params))[0]
    assert np.abs(poles - found).min() < 1e-6


def test_damping_and_frequency_learn(rng):
    neuron = Pendulum(gamma=0.1, omega0=0.5, dt=0.5)
    currents = rng.normal(0.6, 0.5, size=(30, 2, 3)).astype(np.float32)

    def count(params):
        return jnp.sum(run(neuron, currents, params)[0])

    for bar in jax.tree.leaves(jax.jit(jax.grad(count))(neuron.init(jax.random.key(0), 3))):
        assert np.isfinite(bar).all() and np.any(bar)
