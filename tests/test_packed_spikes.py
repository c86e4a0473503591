"""Spikes that the backward pass keeps as bits, against float64 adjoints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from pspike_jax.functional import Engine, linear_ssm
from pspike_jax.functional.packed_spikes import spike_product, with_packed_spikes
from pspike_jax.nn import DPLRSSM, DiagonalSSM, SpikeMixer

B, L, H, N = 2, 150, 11, 3  # several chunks, and features that leave a byte of bits unfilled


def spikes_of(rng, value=1.0):
    return jnp.float32(value * (rng.random((B, L, H)) < 0.4))


@pytest.mark.parametrize("magnitude", [1.0, 1.25])
def test_spike_product_and_its_gradient_match_float64(rng, magnitude):
    spikes, kernel = spikes_of(rng, magnitude), jnp.float32(rng.normal(size=(H, 4)))
    y_bar = jnp.float32(rng.normal(size=(B, L, 4)))
    y, pull = jax.vjp(lambda s, k: spike_product(s, k, magnitude), spikes, kernel)
    spikes_bar, kernel_bar = pull(y_bar)
    s, k, g = (np.float64(a) for a in (spikes, kernel, y_bar))
    # Sums of at most B L = 300 terms of size 1, in float32.
    np.testing.assert_allclose(y, s @ k, atol=1e-5)
    np.testing.assert_allclose(spikes_bar, g @ k.T, atol=1e-5)
    np.testing.assert_allclose(kernel_bar, np.einsum("blf,blh->fh", s, g), atol=1e-4)


@pytest.mark.parametrize("engine", [Engine.CHUNKED, Engine.FFT])  # one in time, one in frequency
def test_gradient_of_a_system_driven_by_packed_spikes_matches_float64(rng, engine):
    pairs = lambda *shape: jnp.complex64(rng.normal(size=(*shape, 2)) @ np.array([1, 1j]))
    Lambda_bar = jnp.complex64(rng.uniform(0.8, 0.99, (H, N)) * np.exp(1j * rng.random((H, N))))
    system = Lambda_bar, pairs(H, N), pairs(2, H, N), jnp.float32(rng.normal(size=H))
    spikes, y_bar = spikes_of(rng), jnp.float32(rng.normal(size=(B, L, H)))
    evaluate = lambda u, system: linear_ssm(u, *system, engine=engine)[0]

    @jax.jit
    def pull_back(spikes, system, y_bar):
        y, pull = jax.vjp(functools.partial(with_packed_spikes, evaluate), spikes, system)
        return y, pull(y_bar)

    y, (spikes_bar, system_bar) = pull_back(spikes, system, y_bar)
    expected = oracles.linear_ssm_gradients(y_bar, np.zeros((B, H, N)), spikes, *system)
    values, _ = oracles.linear_ssm(spikes, *system)
    np.testing.assert_allclose(y, values, atol=5e-5 * np.abs(values).max())
    for name, bar in zip(("u", "Lambda_bar", "B_bar", "C", "D"), (spikes_bar, *system_bar)):
        peak = np.abs(expected[name]).max()
        # As for `linear_ssm` itself, see test_linear_ssm.py.
        np.testing.assert_allclose(bar, expected[name], atol=5e-5 * peak, err_msg=name)


SIZES = {"features": H, "d_state": 2 * N, "shared": False, "two_sided": True, "skip": True,
         "dt_min": 0.01, "dt_max": 0.1}
LAYERS = {
    "diagonal": functools.partial(DiagonalSSM, initializer="lin", train_B=True, **SIZES),
    "dplr": functools.partial(DPLRSSM, length=L, engine="fft", **SIZES),
    "mixer": functools.partial(SpikeMixer, H, "dense", "identity"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_spikes_keep_bits_and_have_the_gradient_of_layers_of_numbers(rng, name):
    spikes, pulls = spikes_of(rng), {}
    given = (spikes,) if name == "mixer" else spikes
    result = lambda y: y if name == "mixer" else y[0]
    variables = jax.jit(LAYERS[name](spiking=True).init)(jax.random.key(0), given)

    def run(spiking, variables, given):
        return result(LAYERS[name](spiking=spiking).apply(variables, given))

    for spiking in (True, False):
        y, pulls[spiking] = jax.vjp(jax.jit(functools.partial(run, spiking)), variables, given)
    kept = {spiking: jax.tree.leaves(pull) for spiking, pull in pulls.items()}
    floats = {
        spiking: [a for a in leaves if a.size >= spikes.size and set(np.unique(a)) == {0.0, 1.0}]
        for spiking, leaves in kept.items()
    }
    assert floats[False] and not floats[True]
    assert any(a.dtype == jnp.uint8 and a.shape == (B, L, 2) for a in kept[True])
    y_bar = jnp.float32(rng.normal(size=y.shape))
    got, expected = (jax.tree.leaves(pulls[spiking](y_bar)) for spiking in (True, False))
    for g, e in zip(got, expected, strict=True):
        # The same products, summed in another order.
        np.testing.assert_allclose(g, e, atol=1e-5 * np.abs(e).max())


def test_a_whole_sequence_pays_nothing_for_its_last_state(rng):
    """Zeros came back to the unread state, and its gradient took as long as that of the outputs."""
    layer = lambda spiking: LAYERS["diagonal"](spiking=spiking, engine="fft", d_state=128)
    spikes, y_bar = spikes_of(rng), jnp.float32(rng.normal(size=(B, L, H)))
    variables = layer(True).init(jax.random.key(0), spikes)

    def flops(spiking):
        def program(variables, spikes, y_bar):
            run = lambda variables, spikes: layer(spiking).apply(variables, spikes)[0]
            y, pull = jax.vjp(run, variables, spikes)
            return y, pull(y_bar)

        compiled = jax.jit(program).lower(variables, spikes, y_bar).compile()
        return compiled.cost_analysis()["flops"]

    assert layer(True).apply(variables, spikes)[1] is None
    # Spikes are unpacked and transformed again; with the state it was 1.7.
    assert flops(True) < 1.4 * flops(False)
