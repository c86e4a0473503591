"""PMSN: sums that cross multiples of a threshold, and where its compartments start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional.compartments import compartment_modes, fire_by_sum

fire = jax.jit(fire_by_sum, static_argnames="threshold")


def loop(y, threshold, resets=None):
    """Return spikes and r - V of y (B, L, H), in float64, as the program writes them."""
    before, spikes, drives = np.zeros(y[:, 0].shape), [], []
    for t in range(y.shape[1]):
        if resets is not None:
            before = np.where(resets[:, t, None], 0, before)
        total = before + y[:, t]
        r = total - np.maximum(np.floor(before / threshold), 0) * threshold
        spikes.append(np.clip(np.floor(r / threshold), 0, 1))
        drives.append(r - threshold)
        before = total
    return np.stack(spikes, axis=1), np.stack(drives, axis=1)


@pytest.mark.parametrize("threshold", [1.0, 0.3])
@pytest.mark.parametrize("packed", [False, True])
def test_spikes_are_crossings_of_the_sum(threshold, packed, rng):
    # Quarters and thirds of V would be ties; several thresholds are passed in one step at times.
    y = np.maximum(rng.normal(0.2, 0.5, (2, 90, 4)), 0).astype(np.float32)
    resets = rng.random((2, 90)) < 0.1 if packed else None
    expected, drives = loop(y.astype(np.float64), threshold, resets)
    assert np.abs(drives).min() > 1e-5 and (drives > threshold).any()
    given = None if resets is None else jnp.asarray(resets)
    spikes, v, _ = fire(jnp.asarray(y), threshold=threshold, resets=given)
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_allclose(v, drives, atol=3e-6)


def test_long_sums_lose_no_digits_and_go_on_in_a_stream(rng):
    y = np.maximum(rng.normal(1, 1, (1, 20_000, 1)), 0).astype(np.float32)
    expected, drives = loop(y.astype(np.float64), 1.0)
    clear = np.abs(np.mod(drives, 1.0) - 0.5) < 0.4999  # no tie within 1e-4
    spikes, _, last = fire(jnp.asarray(y), threshold=1.0)
    np.testing.assert_array_equal(np.asarray(spikes)[clear], expected[clear])
    first, _, kept = fire(jnp.asarray(y[:, :777]), threshold=1.0)
    second, _, end = fire(jnp.asarray(y[:, 777:]), kept, threshold=1.0)
    streamed = np.concatenate([first, second], axis=1)
    np.testing.assert_array_equal(streamed[clear], expected[clear])
    np.testing.assert_allclose(end, last, atol=1e-4)


def test_nothing_flows_through_the_sum():
    y = jnp.float32([[[0.4], [0.3], [2.5], [0.2]]])
    gradient = jax.grad(lambda y: jnp.sum(fire(y, threshold=1.0)[0]))(y)
    # r = 0.4, 0.7, 3.2, 0.4: only |r - 1| < 1 lets it pass.
    np.testing.assert_array_equal(gradient[0, :, 0], [1, 1, 0, 1])


def test_compartments_start_as_a_chain_in_its_eigenbasis():
    A, B, C = compartment_modes(4)
    coupling = np.diag([5.0, 10, 15], 1) - np.diag([5.0, 10, 15], -1) - 0.5 * np.eye(4)
    powers, x = [], np.ones(4)
    for _ in range(6):  # moments of the impulse response: c M^k b, whatever the phases
        powers.append(x[-1])
        x = coupling @ x
    moments = [np.sum(C * A**k * B) for k in range(6)]
    np.testing.assert_allclose(moments, powers, rtol=1e-9, atol=1e-9)


def test_compartments_start_where_the_program_starts_them(golden):
    arrays = golden("spiking/pmsn_neuron_dev.npz")
    start = {k: arrays[f"initial/kernel.{k}"] for k in (
        "A_imag", "log_A_real", "VinvB_real", "VinvB_imag", "CV_real", "CV_imag")}
    A, B, C = compartment_modes(start["A_imag"].shape[1])
    poles = -np.exp(start["log_A_real"][0]) + 1j * start["A_imag"][0]
    np.testing.assert_allclose(poles, A, rtol=1e-6)
    weights = (start["VinvB_real"] + 1j * start["VinvB_imag"])[0]
    weights = weights * (start["CV_real"] + 1j * start["CV_imag"])[0]
    # Phases of eigenvectors cancel in the product of input and readout, mode by mode.
    np.testing.assert_allclose(weights, B * C, atol=1e-6)
