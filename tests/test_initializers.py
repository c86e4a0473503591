"""Initial state spaces against their definitions, and the step sizes against their law."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional.initializers import (
    hippo_legs_matrix,
    hippo_legs_nplr,
    log_uniform_dt,
    s4d_inv,
    s4d_legs,
    s4d_lin,
)
from pspike_jax.nn import DPLRSSM


def legs_by_loop(N):
    """HiPPO-LegS entry by entry, as the paper writes it."""
    A = np.zeros((N, N))
    for n in range(N):
        for k in range(n):
            A[n, k] = -np.sqrt((2 * n + 1) * (2 * k + 1))
        A[n, n] = -(n + 1)
    return A


def dense_from_modes(Lambda, P):
    """Both halves of every conjugate pair: diag(Lambda) - P P*."""
    Lambda, P = np.r_[Lambda, Lambda.conj()], np.r_[P, P.conj()]
    return np.diag(Lambda) - np.outer(P, P.conj())


def test_hippo_legs_matrix_for_two_states_is_the_one_worked_out_by_hand():
    A, B = hippo_legs_matrix(2)
    # Rounding of one square root in float64.
    np.testing.assert_allclose(A, [[-1, 0], [-np.sqrt(3), -2]], rtol=1e-15)
    np.testing.assert_allclose(B, [1, np.sqrt(3)], rtol=1e-15)


def test_hippo_legs_matrix_follows_the_formula_entry_by_entry():
    # One square root of a product against a product of two: a few units in the last place.
    np.testing.assert_allclose(hippo_legs_matrix(7)[0], legs_by_loop(7), rtol=1e-14)


def test_hippo_legs_matrix_refuses_no_state():
    with pytest.raises(ValueError, match="got 0"):
        hippo_legs_matrix(0)


def test_hippo_legs_nplr_has_the_eigenvalues_of_legs():
    # LegS is triangular: its eigenvalues are -1 .. -N, ill-conditioned (about 1e4 at N = 8).
    values = np.linalg.eigvals(dense_from_modes(*hippo_legs_nplr(8)[:2]))
    np.testing.assert_allclose(np.sort(values.real), -np.arange(8.0, 0, -1), rtol=1e-9)
    np.testing.assert_allclose(values.imag, 0, atol=1e-8)


@pytest.mark.parametrize("N", [2, 8, 64])
def test_hippo_legs_nplr_is_legs_in_another_basis(N):
    """P* A^k B does not depend on the basis, so it must equal the value in the Legendre basis."""
    Lambda, P, B = hippo_legs_nplr(N)
    A, A_modes = legs_by_loop(N), dense_from_modes(Lambda, P)
    p, p_modes = np.sqrt(np.arange(N) + 0.5), np.r_[P, P.conj()]
    x, x_modes = np.sqrt(2 * np.arange(N) + 1), np.r_[B, B.conj()]
    for _ in range(5):
        # float64 products of N terms; 1e-12 leaves a hundred roundings of 1e-16 per power.
        np.testing.assert_allclose(p_modes.conj() @ x_modes, p @ x, rtol=1e-12)
        x, x_modes = A @ x, A_modes @ x_modes


def test_hippo_legs_nplr_fixes_the_phase_by_the_first_component():
    """An eigenvector found another way, then turned until its first component is positive."""
    N = 8
    Lambda, P, _ = hippo_legs_nplr(N)
    normal = legs_by_loop(N) + np.outer(*[np.sqrt(np.arange(N) + 0.5)] * 2)
    for eigenvalue, p in zip(Lambda, P):
        # The null vector of normal - eigenvalue, scaled to length 1 and first component > 0.
        v = np.linalg.svd(normal - eigenvalue * np.eye(N))[2][-1].conj()
        v *= np.abs(v[0]) / v[0]
        # An SVD in float64 loses a few digits on the small first components.
        np.testing.assert_allclose(v.conj() @ np.sqrt(np.arange(N) + 0.5), p, rtol=1e-10)


@pytest.mark.parametrize("name", ["bidirectional_noise", "unidirectional_threshold"])
def test_dplr_layers_start_at_the_published_parameters(golden, name):
    """Up to order and a sign per mode, which LAPACK leaves open, the files hold these numbers."""
    arrays = golden(f"pspikessm_{name}.npz")
    stored = {
        key: arrays[f"param/layers.0.layer.layer.kernel.{key}"][0] for key in ("A_imag", "P", "B")
    }
    P, B = (stored[key][0, :, 0] + 1j * stored[key][0, :, 1] for key in ("P", "B"))
    layer = DPLRSSM(
        features=1, d_state=2 * P.size, shared=True, two_sided=False, skip=False,
        dt_min=1e-3, dt_max=1e-1, length=4,
    )
    boxed = layer.init(jax.random.key(0), method=lambda module: module.B)
    start = nn.meta.unbox(boxed)["params"]
    P_ours, B_ours = (start[key][0, :, 0] + 1j * start[key][0, :, 1] for key in ("P", "B"))
    sign = np.sign(P.real)
    # The files are float32.
    np.testing.assert_allclose(start["A_imag"][:, ::-1], stored["A_imag"][None], rtol=1e-6)
    np.testing.assert_allclose(P_ours[::-1], sign * P, rtol=2e-6)
    np.testing.assert_allclose(B_ours[::-1], sign * B, rtol=2e-6)
    assert np.sum(np.abs(np.imag(B)) == 2) > 0  # the program clips, and so does the layer


@pytest.mark.parametrize("N", [2, 16, 64])
def test_s4d_legs_is_the_spectrum_of_the_normal_part(N):
    root = np.sqrt(np.arange(N) + 0.5)
    values = np.linalg.eigvals(legs_by_loop(N) + np.outer(root, root))
    expected = np.sort(values.imag[values.imag > 0])
    Lambda = s4d_legs(N)
    np.testing.assert_array_equal(Lambda.real, -0.5)
    # Both solvers are exact to rounding, 1e-16, of the largest eigenvalue, about N^2 / pi.
    np.testing.assert_allclose(Lambda.imag, expected, rtol=1e-12, atol=1e-14 * N**2)


def test_s4d_lin_counts_in_steps_of_pi():
    expected = [-0.5, -0.5 + 1j * np.pi, -0.5 + 2j * np.pi]
    np.testing.assert_allclose(s4d_lin(6), expected, rtol=1e-15)  # float64 rounding


def test_s4d_inv_follows_the_formula_by_hand():
    # N = 4: (4 / pi)(4 / 1 - 1) = 12 / pi and (4 / pi)(4 / 3 - 1) = 4 / (3 pi).
    expected = [-0.5 + 12j / np.pi, -0.5 + 4j / (3 * np.pi)]
    np.testing.assert_allclose(s4d_inv(4), expected, rtol=1e-14)  # float64 rounding


@pytest.mark.parametrize("initializer", [hippo_legs_nplr, s4d_legs, s4d_lin, s4d_inv])
@pytest.mark.parametrize("N", [0, 7])
def test_initializers_refuse_an_odd_or_empty_state(initializer, N):
    with pytest.raises(ValueError, match=f"even and 2 or more, got {N}"):
        initializer(N)


def test_log_uniform_dt_has_a_uniform_logarithm():
    """Kolmogorov-Smirnov with the Dvoretzky-Kiefer-Wolfowitz bound.

    alpha = 1e-6 and n = 65,536 give 0.0105 as the largest distance between distribution functions;
    any bias of the median above 1.05 % of the logarithmic range is caught.
    """
    n, alpha = 65_536, 1e-6
    dt = np.asarray(log_uniform_dt(jax.random.key(3), (n,), 1e-3, 1e-1), np.float64)
    position = np.sort((np.log(dt) - np.log(1e-3)) / np.log(1e-1 / 1e-3))
    distance = np.max(np.abs(position - (np.arange(n) + 0.5) / n)) + 0.5 / n
    assert distance < np.sqrt(np.log(2 / alpha) / (2 * n))


def test_log_uniform_dt_stays_float32_and_in_range(key):
    with jax.enable_x64(True):
        dt = log_uniform_dt(key(), (64, 2), 1e-3, 1e-1)
    assert dt.dtype == jnp.float32 and dt.shape == (64, 2)
    # exp in float32 of a rounded logarithm: a few units in the last place.
    assert float(dt.min()) >= 1e-3 * (1 - 1e-6) and float(dt.max()) <= 1e-1 * (1 + 1e-6)


@pytest.mark.parametrize("bounds", [(0.1, 0.1), (0.1, 0.01), (0.0, 0.1), (-1.0, 0.1)])
def test_log_uniform_dt_refuses_bounds_out_of_order(key, bounds):
    with pytest.raises(ValueError, match=f"dt_min={bounds[0]}, dt_max={bounds[1]}"):
        log_uniform_dt(key(), (2,), *bounds)
