"""Surrogates against their formulas in closed form, with v = drive - threshold."""

import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional import surrogates

FORMULAS = {
    "clamp_straight_through": lambda drive, v: (0 <= drive) & (drive <= 1),
    "boxcar": lambda drive, v: (-0.5 < v) & (v <= 0.5),
    "arctan": lambda drive, v: 1 / (1 + (np.pi * v)**2),
    "triangular": lambda drive, v: np.maximum(0, 1 - np.abs(v)),
    "superspike": lambda drive, v: 1 / (1 + 10 * np.abs(v))**2,
    "sigmoid": lambda drive, v: 4 * np.exp(-4 * np.abs(v)) / (1 + np.exp(-4 * np.abs(v)))**2,
    "window": lambda drive, v: np.abs(v) < 1,
    "multi_gaussian": lambda drive, v: (
        1.15 * np.exp(-0.5 * (v / 0.5)**2)
        - 0.15 * np.exp(-0.5 * ((v - 0.5) / 3)**2)
        - 0.15 * np.exp(-0.5 * ((v + 0.5) / 3)**2)
    ),
    "none": lambda drive, v: np.zeros_like(v),
}
NAMES = tuple(FORMULAS)


def test_surrogates_are_all_named():
    assert set(surrogates.SURROGATES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0])
def test_surrogate_equals_its_formula(name, threshold):
    drive = np.arange(-4, 4.0625, 1 / 16)  # exact in float32, and so is drive - threshold
    value = surrogates.SURROGATES[name](jnp.asarray(drive, jnp.float32), threshold)
    # Fewer than ten float32 operations, each within 1e-7, and exp(-16) within 2e-6.
    np.testing.assert_allclose(value, FORMULAS[name](drive, drive - threshold).astype(float),
                               rtol=3e-6, atol=2e-7)


@pytest.mark.parametrize("name", NAMES)
def test_surrogate_takes_a_threshold_for_each_element(name, rng):
    drive = rng.uniform(-1, 2, (4, 5)).astype(np.float32)
    threshold = rng.uniform(0, 1, (4, 5)).astype(np.float32)
    value = surrogates.SURROGATES[name](jnp.asarray(drive), jnp.asarray(threshold))
    # float32 rounds v by 1e-7; the steepest surrogate (slope 20) makes that 2e-6.
    np.testing.assert_allclose(value, FORMULAS[name](drive, drive - threshold).astype(float),
                               rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_surrogate_is_finite_far_from_the_threshold(name, dtype):
    drive = jnp.asarray([-1e4, -300, -90, -20, 0, 20, 90, 300, 1e4], dtype)
    value = surrogates.SURROGATES[name](drive)
    assert value.dtype == dtype
    value = np.asarray(value, np.float64)
    least = -0.3 if name == "multi_gaussian" else 0  # two wide bells of 0.15 are taken off
    assert np.all(np.isfinite(value)) and np.all(value >= least) and np.all(value <= 1)
    assert np.all(value[[0, -1]] < 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_surrogate_keeps_the_dtype_of_the_drive(name):
    drive = jnp.asarray([0.25, 0.5], jnp.bfloat16)
    assert surrogates.SURROGATES[name](drive, 0.5).dtype == jnp.bfloat16


def test_clamp_straight_through_includes_both_ends():
    below, above = np.nextafter(np.float32([0, 1]), np.float32([-1, 2]))
    drive = jnp.asarray([-1, below, -0.0, 0, 0.5, 1, above, 2], jnp.float32)
    # Subnormal numbers count as 0 where the machine flushes them; -1e-30 is a normal one.
    drive = drive.at[1].set(-1e-30)
    np.testing.assert_array_equal(surrogates.clamp_straight_through(drive),
                                  [0, 0, 1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_boxcar_excludes_its_lower_edge_and_includes_its_upper(dtype):
    step = float(jnp.finfo(dtype).eps) / 2  # spacing of numbers in [1/2, 1)
    v = jnp.asarray([-0.5 - step, -0.5, -0.5 + step, 0.5 - step, 0.5, 0.5 + step], dtype)
    np.testing.assert_array_equal(surrogates.boxcar(v).astype(np.float32), [0, 0, 1, 1, 1, 0])
