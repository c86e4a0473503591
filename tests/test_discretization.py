"""Discretization against float64: quadrature for the exact step, linear solves for the bilinear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.functional.discretization import (
    discretize_bilinear,
    discretize_bilinear_dplr,
    discretize_zoh,
)
from pspike_jax.functional.recurrence import linear_recurrence

# Around the switch from series to expm1 at |z| = 0.3, far beyond it on both sides, slow and fast.
RADII = np.array([1e-7, 1e-4, 1e-2, 0.1, 0.299, 0.301, 1.0, 5.0])
ANGLES = np.array([0.5, 0.6, 0.75, 0.99, 1.0]) * np.pi


# Of the real parts of all gains; for a holomorphic function JAX returns the complex derivative.
zoh_gain_gradients = jax.jit(jax.grad(lambda *a: jnp.sum(discretize_zoh(*a)[1].real), (0, 1)))


def poles_and_steps():
    """Poles in the left half plane as (H, N) and steps (H,), rounded to float32."""
    poles = (RADII[:, None] * np.exp(1j * ANGLES)[None]).reshape(2, -1).astype(np.complex64)
    dt = np.array([0.004, 0.05], np.float32)
    return (poles / dt[:, None]).astype(np.complex64), dt


def moment(z, power):
    """Integral over s in [0, 1] of s^power exp(s z): expm1(z) / z for 0, its derivative for 1."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    s = (nodes + 1) / 2
    return np.sum(weights / 2 * s**power * np.exp(np.multiply.outer(z, s)), axis=-1)


def dense_bilinear(Lambda, P, Q, B, dt):
    """One feature's A_bar and B_bar by linear solves in float64."""
    both = lambda v: np.concatenate([v, np.conj(v)]).astype(np.complex128)
    A = np.diag(both(Lambda)) - np.outer(both(P), both(Q))
    left, right = np.eye(len(A)) - dt / 2 * A, np.eye(len(A)) + dt / 2 * A
    return np.linalg.solve(left, right), np.linalg.solve(left, dt * both(B))


def random_dplr(rng, H, N):
    """Lambda, P, Q, B (H, N) and dt (H,) in single precision; Q is not the conjugate of P."""
    draw = lambda: (rng.normal(size=(H, N)) + 1j * rng.normal(size=(H, N))).astype(np.complex64)
    Lambda = (-rng.uniform(0.2, 1, (H, N)) + 1j * rng.uniform(0, 20, (H, N))).astype(np.complex64)
    P = draw()
    Q = (P.conj() + 0.1 * draw()).astype(np.complex64)
    return Lambda, P, Q, draw(), rng.uniform(0.01, 0.1, H).astype(np.float32)


def test_discretize_zoh_is_exact_near_and_far_from_zero():
    Lambda, dt = poles_and_steps()
    Lambda_bar, gain = jax.jit(discretize_zoh)(Lambda, dt)
    z = Lambda.astype(np.complex128) * dt[:, None]
    # The product z is rounded, and exp turns that into |z| <= 5 times 6e-8.
    np.testing.assert_allclose(Lambda_bar, np.exp(z), rtol=6e-7)
    np.testing.assert_allclose(gain, dt[:, None] * moment(z, 0), rtol=6e-7)


def test_discretize_zoh_with_a_step_size_for_each_sample_solves_the_ode(rng):
    """x' = Lambda x + B u with u held, on irregular times, some of which coincide."""
    batch, steps, H, N = 2, 60, 3, 2
    elapsed = rng.exponential(1.0, (batch, steps)).astype(np.float32)
    elapsed[:, [7, 30]] = 0
    Lambda, _, _, B, dt = random_dplr(rng, H, N)
    u = rng.normal(size=(batch, steps, H)).astype(np.float32)

    @jax.jit
    def run(u, elapsed):
        Lambda_bar, gain = discretize_zoh(Lambda, elapsed[..., None] * dt[None, None])
        drive = gain * B[None, None] * u[..., None].astype(gain.dtype)
        flat = (batch, steps, H * N)
        return linear_recurrence(Lambda_bar.reshape(flat), drive.reshape(flat))

    x, states = np.zeros((batch, H, N), np.complex128), []
    for t in range(steps):
        span = np.float64(elapsed[:, t, None, None]) * dt[:, None]
        z = Lambda.astype(np.complex128) * span
        # The variation of constants, its integral by quadrature.
        x = np.exp(z) * x + span * moment(z, 0) * B * u[:, t, :, None]
        states.append(x)
    expected = np.stack(states, axis=1).reshape(batch, steps, H * N)
    error = np.abs(np.asarray(run(u, elapsed)) - expected).max() / np.abs(expected).max()
    # Rounding at each step, as for `linear_recurrence` itself.
    assert error < 1e-5


def test_discretize_zoh_has_exact_gradients_near_and_far_from_zero():
    Lambda, dt = poles_and_steps()
    by_Lambda, by_dt = zoh_gain_gradients(Lambda, dt)
    z = Lambda.astype(np.complex128) * dt[:, None]
    # The gain is dt f(dt Lambda): its derivatives are dt^2 f' and exp(z). expm1(z) / z loses
    # 1/|z| < 4 of the 6e-8 where it is used; a cancelling formula would be off by 1e-3 at 1e-4.
    np.testing.assert_allclose(by_Lambda, dt[:, None] ** 2 * moment(z, 1), rtol=2e-6)
    np.testing.assert_allclose(by_dt, np.sum(np.exp(z).real, axis=1), rtol=2e-6)


def test_discretize_zoh_reaches_its_limit_at_zero_with_finite_gradients():
    Lambda, dt = jnp.zeros((1, 1), jnp.complex64), jnp.array([0.25])
    np.testing.assert_array_equal(discretize_zoh(Lambda, dt)[1], 0.25)
    by_Lambda, by_dt = zoh_gain_gradients(Lambda, dt)
    np.testing.assert_array_equal(by_Lambda, 0.25**2 / 2)
    np.testing.assert_array_equal(by_dt, 1)


def test_discretize_bilinear_solves_the_trapezoidal_rule_as_a_real_system():
    Lambda, dt = poles_and_steps()
    Lambda_bar, gain = jax.jit(discretize_bilinear)(Lambda, dt)
    for h, n in np.ndindex(*Lambda.shape):
        a, w = float(Lambda[h, n].real), float(Lambda[h, n].imag)
        half = float(dt[h]) / 2 * np.array([[a, -w], [w, a]])
        # The first column of a 2x2 matrix of a complex number holds its two parts.
        step = np.linalg.solve(np.eye(2) - half, np.eye(2) + half)[:, 0]
        push = np.linalg.solve(np.eye(2) - half, dt[h] * np.eye(2))[:, 0]
        # A handful of float32 operations.
        np.testing.assert_allclose(Lambda_bar[h, n], step[0] + 1j * step[1], atol=3e-7)
        np.testing.assert_allclose(gain[h, n], push[0] + 1j * push[1], rtol=5e-7)


def test_discretize_bilinear_has_exact_gradients():
    Lambda, dt = poles_and_steps()
    loss = lambda x: jnp.sum(discretize_bilinear(x, dt)[0].real)
    by_Lambda = jax.jit(jax.grad(loss))(Lambda)
    z = Lambda.astype(np.complex128) * dt[:, None]
    # d/dLambda (1 + z/2) / (1 - z/2) = dt / (1 - z/2)^2, where the cotangent of the quotient sums
    # two terms of like size: a few float32 roundings.
    np.testing.assert_allclose(by_Lambda, dt[:, None] / (1 - z / 2) ** 2, rtol=2e-6)


@pytest.mark.parametrize("discretize", [discretize_zoh, discretize_bilinear])
def test_discretize_shares_poles_over_features(discretize):
    Lambda, dt = poles_and_steps()
    shared = discretize(Lambda[0], dt)
    repeated = discretize(np.stack([Lambda[0]] * 2), dt)
    np.testing.assert_array_equal(shared, repeated)


@pytest.mark.parametrize("discretize", [discretize_zoh, discretize_bilinear])
def test_discretize_keeps_stable_poles_inside_the_circle(discretize, rng):
    Lambda = -np.exp(rng.uniform(-3, 5, (4, 64))) + 1j * rng.uniform(-300, 300, (4, 64))
    Lambda_bar, _ = discretize(Lambda, np.array([1e-3, 1e-2, 0.1, 1.0]))
    # The quotient of two nearly equal numbers may round up by a few 6e-8.
    assert np.max(np.abs(Lambda_bar)) <= 1 + 2e-7


@pytest.mark.parametrize("discretize", [discretize_zoh, discretize_bilinear])
def test_discretize_is_single_precision_whatever_comes_in(discretize):
    Lambda, dt = np.array([-0.5 + 3j]), np.array([0.001])
    expected = discretize(Lambda.astype(np.complex64), dt.astype(np.float32))
    with jax.enable_x64(True):
        wide = discretize(Lambda, dt)
    assert {str(x.dtype) for x in wide} == {"complex64"}
    np.testing.assert_array_equal(wide, expected)


def test_discretize_bilinear_dplr_matches_dense_solves(rng):
    Lambda, P, Q, B, dt = random_dplr(rng, 3, 5)
    A_bar, B_bar = jax.jit(discretize_bilinear_dplr)(Lambda, P, Q, B, dt)
    for h in range(3):
        A_expected, B_expected = dense_bilinear(Lambda[h], P[h], Q[h], B[h], float(dt[h]))
        # Entries of A_bar are at most about 1, and come from ten or so float32 operations.
        np.testing.assert_allclose(A_bar[h], A_expected, atol=5e-7)
        np.testing.assert_allclose(B_bar[h], B_expected, rtol=3e-6)


def test_discretize_bilinear_dplr_shares_parameters_over_features(rng):
    *shared, dt = random_dplr(rng, 3, 4)
    shared = [x[0] for x in shared]
    A_bar, B_bar = discretize_bilinear_dplr(*shared, dt)
    A_copies, B_copies = discretize_bilinear_dplr(*(np.stack([x] * 3) for x in shared), dt)
    np.testing.assert_array_equal(A_bar, A_copies)
    np.testing.assert_array_equal(B_bar, B_copies)


def test_discretize_bilinear_dplr_has_the_gradients_of_the_dense_solve(rng):
    arguments = random_dplr(rng, 1, 3)
    a, b = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for shape in ((6, 6), (6,)))

    def loss(*arguments):
        A_bar, B_bar = discretize_bilinear_dplr(*arguments)
        return jnp.sum((a * A_bar[0]).real) + jnp.sum((b * B_bar[0]).real)

    def exact(*arguments):
        A_bar, B_bar = dense_bilinear(*(x[0] for x in arguments))
        return np.sum((a * A_bar).real) + np.sum((b * B_bar).real)

    gradients = jax.jit(jax.grad(loss, range(5)))(*arguments)
    wide = [x.astype(np.result_type(x.dtype, np.float64)) for x in arguments]
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=wide[i].shape)
        if np.iscomplexobj(wide[i]):
            direction = direction + 1j * rng.normal(size=wide[i].shape)
        moved = [[x + sign * 1e-6 * direction if j == i else x for j, x in enumerate(wide)]
                 for sign in (1, -1)]
        expected = (exact(*moved[0]) - exact(*moved[1])) / 2e-6
        # Central differences in float64 are good to 1e-8; sums of dozens of float32 terms to 1e-5.
        np.testing.assert_allclose(np.sum(gradient * direction).real, expected, rtol=1e-5)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_discretize_bilinear_dplr_lowers_in_single_precision(rng, platform):
    traced = jax.jit(discretize_bilinear_dplr).trace(*random_dplr(rng, 2, 3))
    assert "f64" not in traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("shape", [(), (3, 4), (1, 2, 4)])
def test_discretize_names_poles_of_the_wrong_shape(shape):
    with pytest.raises(ValueError, match="Lambda must have shape"):
        discretize_zoh(np.ones(shape, np.complex64), np.ones(2, np.float32))


def test_discretize_refuses_steps_that_are_not_one_real_number_per_feature():
    poles = np.ones((2, 4), np.complex64)
    with pytest.raises(ValueError, match=r"dt must have shape \(\.\.\., H\), got \(\)"):
        discretize_zoh(poles, np.float32(1))
    with pytest.raises(ValueError, match=r"Lambda must have shape \(1, 4\)"):
        discretize_zoh(poles, np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match=r"dt must have shape \(H,\), got \(3, 2\)"):
        discretize_bilinear_dplr(poles, poles, poles, poles, np.ones((3, 2), np.float32))
    with pytest.raises(TypeError, match="dt must be real"):
        discretize_zoh(np.ones((2, 4), np.complex64), np.ones(2, np.complex64))


def test_discretize_bilinear_dplr_names_the_parameter_that_does_not_fit(rng):
    Lambda, P, Q, B, dt = random_dplr(rng, 2, 3)
    with pytest.raises(ValueError, match=r"Q must have shape \(2, 3\) or \(3,\), got \(2, 2\)"):
        discretize_bilinear_dplr(Lambda, P, Q[:, :2], B, dt)
