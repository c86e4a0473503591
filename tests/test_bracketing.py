"""LIF parallel in time by bracketing: the spikes of a float64 loop, and what is left open."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_neurons as oracle
import pytest

from pspike_jax.functional import neurons

FEATURES = 5

bracketed = jax.jit(neurons.bracketed_lif, static_argnames=("iterations", "room"))


@pytest.mark.parametrize("loudness, least, most", [
    (1.0, 0.0, 0.0),  # every sequence settles
    (3.5, 0.02, 0.3),  # some are scanned
    (6.0, 0.31, 1.0),  # more than there is room for: all are scanned
])
def test_bracketed_lif_matches_float64_loop(loudness, least, most, rng, key):
    alpha = jnp.asarray(rng.uniform(0.82, 0.96, FEATURES), jnp.float32)
    currents = jnp.asarray(loudness * rng.normal(size=(50, 8, FEATURES)), jnp.float32)
    state = neurons.initial_state(neurons.LIF(), 8, FEATURES)
    state = neurons.draw_initial_state(state, key(), example_ids=jnp.arange(8))
    found = bracketed(alpha, currents, state, iterations=6, room=0.3)
    spikes, (membrane,), nearest = oracle.run("lif", {"alpha": alpha}, currents, state)
    expected = np.stack([s.value for s in spikes])
    assert nearest > 1e-5, "a drive within rounding of the threshold would decide nothing"
    assert least <= float(found.open_share) <= most
    assert loudness == 1.0 or 0.01 < expected.mean() < 0.3
    np.testing.assert_array_equal(found.spikes, expected)
    np.testing.assert_array_equal(found.state.spikes, expected[-1])
    # float32 sums of numbers up to 20, in another order.
    np.testing.assert_allclose(found.state.membrane[0], membrane.value, rtol=0, atol=2e-5)


def test_bracketed_lif_leaves_membranes_at_the_threshold_open():
    # Membranes of exactly 1, which does not fire, of 5e-5 above it, of 1.5, and none at all.
    currents = jnp.asarray([2.0, 2.0001, 3.0, jnp.nan], jnp.float32)[None, None]
    state = neurons.initial_state(neurons.LIF(), 1, 4)
    found = neurons.bracketed_lif(jnp.full((4,), 0.5), currents, state, iterations=3)
    np.testing.assert_array_equal(found.spikes[0, 0], [0, 1, 1, jnp.nan])
    np.testing.assert_allclose(found.open_share, 2 / 4)
