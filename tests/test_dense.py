"""The GELU against its definition in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.nn.dense import gelu

X = np.concatenate([np.linspace(-8, 8, 4001), [-1e4, -100.0, -20.0, 20.0, 100.0, 1e4]])
X = X.astype(np.float32)


def exact(x):
    """Return x Phi(x) and its derivative Phi(x) + x phi(x)."""
    x = np.float64(x)
    cumulative = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    return x * cumulative, cumulative + x * np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)


def test_gelu_and_its_derivative_match_float64():
    y, pull = jax.vjp(gelu, jnp.asarray(X))
    value, slope = exact(X)
    # The error function of XLA is within 3e-7; times x / 2, which is 4 where it still matters.
    np.testing.assert_allclose(y, value, rtol=1e-6, atol=1.2e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(y))[0], slope, atol=1.2e-6)


@pytest.mark.parametrize("dtype, digits", [(jnp.bfloat16, 8), (jnp.float16, 11)])
def test_gelu_of_short_numbers_is_rounded_once(dtype, digits):
    x = jnp.asarray(X[:-6], dtype)
    value, _ = exact(x.astype(jnp.float32))
    # Half a unit of the last digit, and the error in single precision above.
    np.testing.assert_allclose(
        np.float64(gelu(x).astype(jnp.float32)), value, rtol=2.0**-digits, atol=1.3e-6
    )
