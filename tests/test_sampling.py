"""Spikes: values, frequencies and the backward rule of sample_spikes, heaviside, expected_firing.

Statistical tests state alpha, the chance that a correct sampler fails under a key drawn at
random, and the smallest bias that they catch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import double

from pspike_jax.functional import (
    SURROGATES,
    expected_firing,
    heaviside,
    linear_ssm,
    sample_spikes,
)

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
LARGEST = 1 - 2.0**-24  # of the uniforms with 24 bits
# The last axis in and around multiples of eight: masks may be kept as bits.
SHAPES = ((), (7,), (2, 9), (2, 3, 16), (0,))


@pytest.fixture
def drive_and_noise(rng):
    """Drives below, in and above [0, 1], uniforms, and a cotangent, float32 of shape (4, 9)."""
    drive = rng.uniform(-0.5, 1.5, (4, 9)).astype(np.float32)
    noise = rng.random((4, 9), np.float32)
    return jnp.asarray(drive), jnp.asarray(noise), jnp.asarray(rng.standard_normal((4, 9)),
                                                               jnp.float32)


# Values.


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_spikes_are_zeros_and_ones_of_the_dtype_of_p(dtype, key):
    p = jnp.linspace(-1, 2, 999).astype(dtype)
    spikes = sample_spikes(p, key())
    assert spikes.dtype == dtype and spikes.shape == p.shape
    assert set(np.asarray(spikes, np.float32)) == {0.0, 1.0}


def test_sample_spikes_fires_iff_p_exceeds_the_noise(drive_and_noise):
    drive, noise, _ = drive_and_noise
    spikes = sample_spikes(drive, noise=noise)
    np.testing.assert_array_equal(spikes, np.asarray(drive) > np.asarray(noise))


def test_sample_spikes_is_silent_at_a_tie():
    np.testing.assert_array_equal(
        sample_spikes(jnp.float32([0.25, 0.5, 0.75]), noise=jnp.float32([0.25, 0.5, 0.75])), 0)


def test_sample_spikes_takes_one_number_as_noise():
    p = jnp.float32([-1, 0, 0.49, 0.5, 0.51, 1, 2])
    np.testing.assert_array_equal(sample_spikes(p, noise=0.5), [0, 0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_spikes_compares_in_float32(dtype):
    p = jnp.full((2,), 0.5, dtype)
    noise = jnp.float32([0.5 - 2.0**-25, 0.5 + 2.0**-24])  # both are 0.5 in 16 bits
    np.testing.assert_array_equal(sample_spikes(p, noise=noise).astype(np.float32), [1, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_spikes_never_fires_at_zero_and_always_at_one(dtype):
    p = jnp.asarray([-np.inf, -1, -0.0, 0, 1, 2, np.inf], dtype)
    for noise in (0.0, 0.5, LARGEST):
        spikes = sample_spikes(p, noise=jnp.full(p.shape, noise, jnp.float32))
        np.testing.assert_array_equal(spikes.astype(np.float32), [0, 0, 0, 0, 1, 1, 1])


def test_sample_spikes_of_certain_probabilities_ignore_the_key(key):
    p = jnp.float32([0, 1] * 2**19)
    np.testing.assert_array_equal(sample_spikes(p, key()), p)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_spikes_keeps_nan(dtype, key):
    p = jnp.asarray([np.nan, 0, 1, np.nan], dtype)
    for spikes in (sample_spikes(p, key()), sample_spikes(p, noise=0.5)):
        np.testing.assert_array_equal(spikes.astype(np.float32), [np.nan, 0, 1, np.nan])


@pytest.mark.parametrize("shape", SHAPES)
def test_sample_spikes_takes_any_shape(shape, rng):
    p, noise = rng.uniform(-0.5, 1.5, (2,) + shape).astype(np.float32)
    spikes, pullback = jax.vjp(lambda p: sample_spikes(p, noise=jnp.asarray(noise)), p)
    np.testing.assert_array_equal(spikes, np.asarray(p > noise))
    np.testing.assert_array_equal(pullback(jnp.full(shape, 3.0))[0], 3.0 * ((0 <= p) & (p <= 1)))


# Frequencies.


def test_sample_spikes_fires_with_probability_p(key):
    """Hoeffding, n = 2^24, m = 7, alpha = 1e-6: catches a bias of 7.0e-4 at any p."""
    n, probabilities, alpha = 2**24, (1e-3, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999), 1e-6
    bound = np.sqrt(np.log(2 * len(probabilities) / alpha) / (2 * n))
    assert bound < 1e-3
    count = jax.jit(lambda p, key: jnp.count_nonzero(sample_spikes(jnp.full((n,), p), key)))
    rates = [int(count(p, key())) / n for p in probabilities]
    np.testing.assert_allclose(rates, probabilities, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sample_spikes_is_unbiased_in_16_bits(dtype, key):
    """Hoeffding, n = 2^23, m = 2, alpha = 1e-6: catches a bias of 9.5e-4.

    Uniforms rounded to bfloat16 would be biased by up to 2^-9 = 2.0e-3 at this p.
    """
    n, alpha = 2**23, 1e-6
    p = jnp.asarray(1 - 2.0**-8, dtype)  # exact in both
    spikes = sample_spikes(jnp.full((n,), p), key())
    bound = np.sqrt(np.log(4 / alpha) / (2 * n))
    rate = np.asarray(spikes).mean(dtype=np.float64)
    np.testing.assert_allclose(rate, 1 - 2.0**-8, rtol=0, atol=bound)


def test_sample_spikes_are_uncorrelated_along_each_axis(key):
    """Normal bound, n = 2^20 pairs, m = 3, alpha = 1e-6: catches a correlation of 5.0e-3."""
    deviation = np.asarray(sample_spikes(jnp.full((64, 128, 128), 0.3), key())) - 0.3
    for axis in range(3):
        moved = np.moveaxis(deviation, axis, 0)
        products = moved[1:] * moved[:-1] / (0.3 * 0.7)
        assert abs(products.mean()) < 5.1 / np.sqrt(products.size), axis


def test_sample_spikes_draws_anew_for_each_key_under_vmap(key):
    keys = jax.random.split(key(), 3)
    p = jnp.full((50,), 0.5)
    together = jax.vmap(lambda k: sample_spikes(p, k))(keys)
    one_by_one = jnp.stack([sample_spikes(p, k) for k in keys])
    np.testing.assert_array_equal(together, one_by_one)
    assert len(np.unique(np.asarray(together), axis=0)) == 3


# The backward rule.


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sample_spikes_gradient_is_cotangent_times_surrogate(name, dtype, drive_and_noise):
    drive, noise, cotangent = drive_and_noise
    drive, cotangent = drive.astype(dtype), cotangent.astype(dtype)
    surrogate = SURROGATES[name]
    _, pullback = jax.vjp(lambda p: sample_spikes(p, noise=noise, surrogate=surrogate), drive)
    gradient, = pullback(cotangent)
    assert gradient.dtype == dtype
    expected = double(cotangent) * double(surrogate(drive.astype(np.float32), noise))
    # One rounding to the dtype of the drive, and one of the surrogate where it is 16 bits wide.
    tolerance = 1e-6 if dtype == jnp.float32 else 2.0**-7
    np.testing.assert_allclose(double(gradient), expected, rtol=tolerance)


def test_sample_spikes_gradient_of_a_users_surrogate_sees_drive_and_noise(drive_and_noise):
    drive, noise, cotangent = drive_and_noise
    _, pullback = jax.vjp(
        lambda p: sample_spikes(p, noise=noise, surrogate=lambda p, u=0.0: 2 * p - u), drive)
    np.testing.assert_allclose(pullback(cotangent)[0], cotangent * (2 * drive - noise), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_spikes_gradient_is_one_on_the_closed_interval(dtype):
    outside = float(1 + jnp.finfo(dtype).eps)
    drive = jnp.asarray([-1, -1e-4, -0.0, 0, 0.5, 1, outside, 2], dtype)
    _, pullback = jax.vjp(lambda p: sample_spikes(p, noise=0.5), drive)
    gradient, = pullback(jnp.ones(8, dtype))
    np.testing.assert_array_equal(gradient.astype(np.float32), [0, 0, 1, 1, 1, 1, 0, 0])


def test_sample_spikes_gradient_of_a_linear_loss_is_its_weights(key, rng):
    p = jnp.asarray(rng.random((5, 11)), jnp.float32)
    weights = jnp.asarray(rng.standard_normal((5, 11)), jnp.float32)
    gradient = jax.grad(lambda p: jnp.sum(weights * sample_spikes(p, key())))(p)
    np.testing.assert_array_equal(gradient, weights)


def test_sample_spikes_gradient_of_a_quadratic_loss_has_the_known_bias(key):
    """E[(s - t)^2] has slope 1 - 2t; straight-through has mean 2 (p - t), off by 2p - 1.

    Hoeffding, values in an interval of 2, n = 2^18, m = 3, alpha = 1e-6: catches 1.1e-2.
    """
    n, alpha = 2**18, 1e-6
    p, target = np.float32([[0.2], [0.5], [0.9]]), np.float32([[0.7], [0.3], [0.1]])
    gradient = jax.grad(lambda p: jnp.sum((sample_spikes(p, key()) - target)**2))(
        jnp.tile(p, (1, n)))
    bias = np.asarray(gradient).mean(axis=1, dtype=np.float64, keepdims=True) - (1 - 2 * target)
    bound = 2 * np.sqrt(np.log(6 / alpha) / (2 * n))
    np.testing.assert_allclose(bias, 2 * p - 1, rtol=0, atol=bound)


def test_sample_spikes_gives_noise_no_gradient(drive_and_noise):
    drive, noise, _ = drive_and_noise
    gradient = jax.grad(lambda u: sample_spikes(drive, noise=u).sum())(noise)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("wrap", [jax.jit, jax.vmap, jax.checkpoint])
def test_sample_spikes_with_its_gradient_is_the_same_inside(wrap, drive_and_noise):
    drive, noise, cotangent = drive_and_noise

    def draw(p, noise):
        return sample_spikes(p, noise=noise)

    spikes, pullback = jax.vjp(draw, drive, noise)
    wrapped_spikes, wrapped_pullback = jax.vjp(wrap(draw), drive, noise)
    np.testing.assert_array_equal(spikes, wrapped_spikes)
    np.testing.assert_array_equal(pullback(cotangent)[0], wrapped_pullback(cotangent)[0])


def test_sample_spikes_repeats_its_draw_under_rematerialisation(key):
    """The loss depends on which spikes the recomputation draws; p = 1/2 makes each a coin."""
    p = jnp.full((64,), 0.5)
    draw_key = key()

    def loss(p):
        return jnp.sum(sample_spikes(p, draw_key)**2 * jnp.arange(64.0))

    plain, remat = (jax.jit(jax.value_and_grad(f))(p) for f in (loss, jax.checkpoint(loss)))
    np.testing.assert_array_equal(plain[0], remat[0])
    np.testing.assert_array_equal(plain[1], remat[1])
    np.testing.assert_array_equal(plain[1] > 0, (sample_spikes(p, draw_key) > 0)
                                  & (jnp.arange(64) > 0))


# After a linear system.


def test_sample_spikes_before_a_linear_ssm_keep_its_mean_and_variance(key):
    """E[y] = ssm(p) and Var[y_t] = sum_j kernel_j^2 p_{t-j} (1 - p_{t-j}), by independence.

    Normal bounds, n = 65,536 draws, m = 48, alpha = 1e-6: catches 2.2 % of the deviation of y in
    its mean and about 3 % of its variance. The variance of a sample variance is
    (mu_4 - sigma^4) / n, where the fourth cumulants of independent terms add.
    """
    n, length, z = 65_536, 24, 5.6
    time = np.arange(length)
    p = 0.5 + 0.45 * np.sin(time + 1)
    Lambda_bar, B_bar, C = np.complex64([[0.9 * np.exp(0.5j)]]), np.complex64([[1.5 - 0.5j]]), 1.0
    kernel = (C * Lambda_bar[0, 0].astype(complex)**time * B_bar[0, 0]).real
    spikes = sample_spikes(jnp.tile(jnp.float32(p)[:, None], (n, 1, 1)), key())
    y, _ = linear_ssm(spikes, Lambda_bar, B_bar, np.complex64([[C]]))
    y = double(y)[..., 0]

    def through(power, cumulants):
        return np.array([np.sum(kernel[:t + 1]**power * cumulants[t::-1]) for t in time])

    mean, variance = through(1, p), through(2, p * (1 - p))
    fourth = through(4, p * (1 - p) * (1 - 6 * p * (1 - p)))  # cumulant: mu_4 - 3 sigma^4
    np.testing.assert_array_less(np.abs(y.mean(axis=0) - mean), z * np.sqrt(variance / n))
    np.testing.assert_array_less(np.abs(y.var(axis=0) - variance),
                                 z * np.sqrt((fourth + 2 * variance**2) / n))


# Neighbours of the sampler.


def test_heaviside_fires_strictly_above_its_threshold():
    drive, threshold = jnp.float32([0.9, 1, 1.1, 3, np.nan]), jnp.float32([1, 1, 1, 4, 0])
    spikes = heaviside(drive, threshold, SURROGATES["boxcar"])
    np.testing.assert_array_equal(spikes, [0, 0, 1, 0, np.nan])


@pytest.mark.parametrize("name", SURROGATES)
def test_heaviside_gradient_is_cotangent_times_surrogate(name, drive_and_noise):
    drive, threshold, cotangent = drive_and_noise
    _, pullback = jax.vjp(lambda d, t: heaviside(d, t, SURROGATES[name]), drive, threshold)
    by_drive, by_threshold = pullback(cotangent)
    np.testing.assert_allclose(by_drive, cotangent * SURROGATES[name](drive, threshold), rtol=1e-6)
    np.testing.assert_array_equal(by_threshold, 0)


def test_expected_firing_clamps_with_gradient_one_at_both_ends():
    drive = jnp.float32([-1, -1e-6, 0, 0.5, 1, 1.000001, 2])
    value, pullback = jax.vjp(expected_firing, drive)
    np.testing.assert_array_equal(value, np.clip(drive, 0, 1))
    np.testing.assert_array_equal(pullback(jnp.full(7, 2.0))[0], [0, 0, 2, 2, 2, 0, 0])


# Bad input.


def test_sample_spikes_rejects_both_key_and_noise(key):
    with pytest.raises(ValueError, match="noise"):
        sample_spikes(jnp.ones(3), key(), noise=0.5)


def test_sample_spikes_rejects_neither_key_nor_noise():
    with pytest.raises(ValueError, match="noise"):
        sample_spikes(jnp.ones(3))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (2, 4)])
def test_sample_spikes_rejects_noise_of_another_shape(shape):
    with pytest.raises(ValueError, match="noise"):
        sample_spikes(jnp.ones((2, 3)), noise=jnp.zeros(shape))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.complex64])
def test_sample_spikes_rejects_p_that_is_not_floating(dtype):
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        sample_spikes(jnp.ones(3, dtype), noise=0.5)


def test_sample_spikes_rejects_the_name_of_a_surrogate():
    with pytest.raises(TypeError, match="'boxcar'; expected a function"):
        sample_spikes(jnp.ones(3), noise=0.5, surrogate="boxcar")
