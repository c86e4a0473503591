"""Langevin latents beside float64, what the model hides from itself, and its own objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pspike_jax
from pspike_jax.data.lorenz import LorenzSettings, lorenz_path, lorenz_spikes, rates_explained
from pspike_jax.functional import langevin
from pspike_jax.nn.latent_path import Draws
from pspike_jax.objectives import SpikeRates

RNG = np.random.default_rng(3)
B, L, N, K, H, F = 3, 5, 2, 3, 8, 2


def energy_by_loops(z, kernel):
    """Sum over all pairs (o, p) of channels <(K * z)_o, z_p>, in float64."""
    channels, total = z.reshape(kernel.shape[1], -1), 0.0
    width = channels.shape[1]
    for o in range(kernel.shape[0]):
        made = np.zeros(width)
        for place in range(width):
            for i in range(kernel.shape[1]):
                for tap in range(3):
                    if 0 <= place + tap - 1 < width:
                        made[place] += kernel[o, i, tap] * channels[i, place + tap - 1]
        total += (made * channels).sum()
    return total


def test_force_is_the_slope_of_the_potential_between_all_pairs_of_channels():
    z, kernel = RNG.normal(size=12), RNG.normal(size=(4, 4, 3))
    assert langevin.potential(jnp.float32(z), jnp.float32(kernel)) == pytest.approx(
        energy_by_loops(z, kernel), rel=1e-5
    )
    slope = [
        (energy_by_loops(z + e, kernel) - energy_by_loops(z - e, kernel)) / 2e-5
        for e in 1e-5 * np.eye(12)
    ]
    found = langevin.force(jnp.float32(z), jnp.float32(kernel))
    np.testing.assert_allclose(found, -np.array(slope), rtol=1e-4, atol=1e-4)


def test_unit_kernels_have_a_gradient_at_zero_that_is_large_and_finite():
    bar = jax.grad(lambda k: jnp.sum(langevin.unit_kernels(k)))(jnp.zeros((4, 4, 3)))
    np.testing.assert_allclose(bar, 1e12, rtol=1e-6)


def test_path_is_steps_one_after_the_other():
    z, v = RNG.normal(size=(2, 2, H))
    kernel, noise = RNG.normal(size=(4, 4, 3)), RNG.normal(size=(2, 6, H))
    zs, vs = langevin.langevin_path(*map(jnp.float32, (z, v, kernel, noise)), 0.4, 0.05)
    for t in range(6):
        pull = np.stack([
            -np.array([
                (energy_by_loops(row + e, kernel) - energy_by_loops(row - e, kernel)) / 2e-6
                for e in 1e-6 * np.eye(H)
            ]) for row in z
        ])
        z, v = z + 0.05 * v, 0.6 * (v + 0.05 * pull) + np.sqrt(0.8) * noise[:, t]
    np.testing.assert_allclose(zs[:, -1], z, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(vs[:, -1], v, rtol=1e-5, atol=1e-5)


def small(**fields):
    return pspike_jax.create_model("langevinflow", "tiny", **{"forward_steps": F} | fields)


def draws(**masks):
    normal = lambda *shape: jnp.asarray(RNG.normal(size=shape), jnp.float32)
    return Draws(normal(B, H), normal(B, H), normal(B, L + F - 1, H), **masks)


def variables_of(model):
    x = jnp.asarray(RNG.poisson(1.0, (B, L, N)), jnp.float32)
    boxed = jax.jit(model.init)({"params": jax.random.key(1), "spikes": jax.random.key(2)}, x)
    return jax.tree.map(jnp.asarray, jax.device_get(unboxed(boxed))), x


def unboxed(boxed):
    return jax.tree.map(
        lambda leaf: leaf.unbox(), boxed, is_leaf=lambda leaf: hasattr(leaf, "unbox")
    )


def test_no_gradient_passes_what_the_encoder_could_copy():
    model = small()
    variables, x = variables_of(model)
    keep, through = (jnp.asarray(RNG.random((B, L, N)) < 0.5) for _ in range(2))
    noise = draws(keep=keep, through=through)
    run = lambda bias: model.apply(
        variables | {"params": variables["params"] | {
            "readout": variables["params"]["readout"] | {"bias": bias}
        }}, x, noise=noise, train=True, rngs={"dropout": jax.random.key(0)},
    )[0]
    passed = jax.jit(jax.jacobian(run))(jnp.zeros(K))
    passed = np.einsum("btkk->btk", passed)
    expected = np.ones((B, L + F, K))
    expected[:, :L, :N] = ~np.asarray(keep) | np.asarray(through)
    np.testing.assert_array_equal(passed, expected)


def test_padding_changes_nothing_and_the_forecast_follows_each_end():
    model = small()
    variables, x = variables_of(model)
    run = jax.jit(lambda x, lengths: model.apply(variables, x, lengths, noise=0.5)[0])
    lengths = jnp.asarray([L, 3, 2])
    outputs = run(x, lengths)
    padded = jnp.where(jnp.arange(L)[None, :, None] < lengths[:, None, None], x, 9.0)
    valid = np.arange(L + F)[None, :, None] < np.asarray(lengths)[:, None, None] + F
    np.testing.assert_allclose(
        np.where(valid, run(padded, lengths), 0), np.where(valid, outputs, 0), atol=1e-6
    )
    alone = model.apply(variables, x[1:2, :3], noise=0.5)[0]
    np.testing.assert_allclose(outputs[1, : 3 + F], alone[0], atol=1e-5)


def test_spiking_encoder_is_counted_and_the_control_sees_no_path():
    model = small(encoder="silif", latents="none")
    variables, x = variables_of(model)
    assert "latent" not in variables["params"]
    outputs, aux = jax.jit(lambda x: model.apply(variables, x, capture=True))(3 * x)
    assert outputs.shape == (B, L + F, K) and not aux["losses"]
    spikes = aux["sites"]["hidden"]["spike_array"][0]
    assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(aux["latents"][..., 2 * H :], spikes)
    np.testing.assert_array_equal(aux["latents"][..., : 2 * H], 0)


def test_rates_are_scored_by_neurons_and_steps():
    counts = RNG.poisson(2.0, (B, L + F, K)).astype(np.int32)
    rates = np.exp(RNG.normal(size=(B, L + F, K)))
    objective = SpikeRates(K, rates=(2.0, 1.5, 0.5), held_in=N, forward_steps=F)
    lengths = np.array([L, 3, 0], np.int32)
    batch = {"lengths": jnp.asarray(lengths), "targets": jnp.asarray(counts)}
    _, _, found = objective(jnp.asarray(np.log(rates), jnp.float32), batch)

    def bits(chosen):
        gain = counts * np.log(rates / objective.rates) - rates + np.array(objective.rates)
        return gain[chosen].sum() / np.log(2) / counts[chosen].sum()

    steps = np.arange(L + F)[None, :, None]
    seen = np.broadcast_to(steps < lengths[:, None, None], counts.shape)
    end = np.where(lengths > 0, lengths + F, 0)[:, None, None]
    ahead = np.broadcast_to(steps < end, counts.shape) & ~seen
    hidden = seen & (np.arange(K) >= N)
    for name, chosen in (("co_bps", hidden), ("fp_bps", ahead), ("bits_per_spike", seen | ahead)):
        value = found[name]["sum"] / found[name]["count"]
        assert float(value) == pytest.approx(bits(chosen), rel=1e-4), name


def test_lorenz_spikes_have_the_rates_that_they_come_with():
    settings = LorenzSettings(conditions=8, train_trials=50, bins=20, neurons=5, seed=1)
    trials = lorenz_spikes(settings)["train"]
    assert trials.counts.shape == trials.rates.shape == (400, 20, 5)
    assert trials.rates.mean() == pytest.approx(settings.mean_count, rel=1e-5)
    mean = trials.counts.reshape(8, 50, 20, 5).mean(axis=1)
    expected = trials.rates[::50]
    assert np.abs((mean - expected) / np.sqrt(expected / 50)).max() < 5  # of 800 numbers
    assert rates_explained(trials.rates, trials.rates)["r2"] == 1
    again = lorenz_spikes(settings)["train"].counts
    np.testing.assert_array_equal(again, trials.counts)


def test_euler_steps_of_lorenz_are_two_operators():
    path = lorenz_path(np.array([1.0, 2.0, 20.0]), 50, euler=True)
    s, r, b, dt = 10.0, 28.0, 8 / 3, 0.01
    A0 = np.eye(3) + dt * np.array([[-s, s, 0], [r, -1, 0], [0, 0, -b]])
    A1 = dt * np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for x, following in zip(path[:-1], path[1:]):
        np.testing.assert_allclose((A0 + x[0] * A1) @ x, following, rtol=1e-13)
