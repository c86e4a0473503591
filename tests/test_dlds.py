"""Decomposed linear dynamics: a system with a known answer, optima, and dense solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pspike_jax.data.lorenz import lorenz_path
from pspike_jax.functional import dlds, smoother
from pspike_jax.recipes.dlds import DLDSSettings, draw_operators, fit_dlds

S, R, BETA, DT = 10.0, 28.0, 8 / 3, 0.01
OPERATORS = np.stack([
    np.eye(3) + DT * np.array([[-S, S, 0], [R, -1, 0], [0, 0, -BETA]]),
    DT * np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]]),
])


@pytest.mark.parametrize("seed", [0, 7])
def test_lorenz_is_two_operators_mixed_by_one_and_its_first_state(seed):
    start = np.random.default_rng(seed).normal(size=3) * 5 + np.array([0, 0, 25])
    path = lorenz_path(start, 200, euler=True)
    with jax.enable_x64(True):
        found = jax.jit(dlds.infer_coefficients)(jnp.asarray(OPERATORS), jnp.asarray(path))
    expected = np.stack([np.ones(199), path[:-1, 0]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_exact_updates_find_two_operators_better_than_one():
    starts = np.random.default_rng(2).normal(size=(4, 3)) * 5 + np.array([0, 0, 25])
    trials = [lorenz_path(start, 100, euler=True).astype(np.float32) for start in starts]
    moved = np.mean([((t[1:] - t[:-1]) ** 2).sum(axis=1).mean() for t in trials])
    errors = {}
    for M in (1, 2):
        # Solutions in turn end in the valley that they start in: here, near "nothing changes".
        first = np.eye(3) + 0.1 * np.random.default_rng(3).normal(size=(M, 3, 3))
        settings = DLDSSettings(M, update="exact", iterations=60, perturb=False)
        fit = fit_dlds(trials, settings, first)
        assert (np.diff(fit.errors) <= 1e-4 * fit.errors[:-1] + 1e-6).all()
        errors[M] = fit.error / moved
    assert 0.05 < errors[1] < 0.5 and errors[2] < errors[1] / 5


def test_gradient_fit_does_what_its_history_says():
    rng = np.random.default_rng(5)
    trials = [rng.normal(size=(12, 3)), rng.normal(size=(7, 3))]
    start = draw_operators(rng, 2, 3)
    settings = DLDSSettings(2, step=0.2, iterations=4, normalise=False, penalty=0.1)
    fit = fit_dlds(trials, settings, start)
    F, step = start.copy(), 0.2
    for error, taken in zip(fit.errors, fit.steps):
        found, left = [], []
        for x in trials:
            for t in range(len(x) - 1):
                G = np.stack([f @ x[t] for f in F], axis=1)
                c = np.linalg.solve(G.T @ G + 0.1 * np.eye(2), G.T @ x[t + 1])
                left.append(x[t + 1] - G @ c)
                found.append((c, x[t]))
        assert error == pytest.approx(np.mean(np.sum(np.square(left), axis=1)), rel=1e-4)
        g = 2 * np.mean([np.einsum("m,i,j->mij", c, e, x) for (c, x), e in zip(found, left)], 0)

        def after(step):
            moved = [
                e - step * np.einsum("m,mij,j->i", c, g, x) for (c, x), e in zip(found, left)
            ]
            return np.mean(np.sum(np.square(moved), axis=1))

        while after(step) > error:
            step /= 2
        assert taken == pytest.approx(step, rel=1e-6)
        F, step = F + step * g, step * settings.decay
    np.testing.assert_allclose(fit.operators, F, rtol=1e-3, atol=1e-4)
    assert [len(c) for c in fit.coefficients] == [11, 6]


def test_fista_meets_the_conditions_of_its_optimum():
    rng = np.random.default_rng(4)
    operators, states = rng.normal(size=(6, 4, 4)), rng.normal(size=(9, 4))
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(
            lambda F, x: dlds.infer_coefficients(
                F, x, solver="fista", penalty=0.7, iterations=4000
            )
        )(operators, states))
    for c, x, following in zip(found, states[:-1], states[1:]):
        G = np.einsum("mij,j->im", operators, x)
        pull = 2 * G.T @ (following - G @ c)
        np.testing.assert_allclose(pull[c != 0], 0.7 * np.sign(c[c != 0]), atol=1e-6)
        assert (np.abs(pull) <= 0.7 + 1e-6).all()
    assert 0 < (found == 0).mean() < 1


def test_smoother_is_the_dense_least_squares_solution():
    rng = np.random.default_rng(6)
    L, p, q, w, r = 7, 3, 2, 0.4, 1e-2
    D, A, y = rng.normal(size=(q, p)), rng.normal(size=(L - 1, p, p)), rng.normal(size=(L, q))
    rows = np.zeros((L * q + (L - 1) * p + L * p, L * p))
    for t in range(L):
        rows[t * q : (t + 1) * q, t * p : (t + 1) * p] = D
    for t in range(L - 1):
        part = rows[L * q + t * p : L * q + (t + 1) * p]
        part[:, t * p : (t + 1) * p] = -np.sqrt(w) * A[t]
        part[:, (t + 1) * p : (t + 2) * p] = np.sqrt(w) * np.eye(p)
    rows[L * q + (L - 1) * p :] = np.sqrt(r) * np.eye(L * p)
    targets = np.concatenate([y.ravel(), np.zeros(len(rows) - y.size)])
    expected = np.linalg.lstsq(rows, targets)[0].reshape(L, p)
    with jax.enable_x64(True):
        smooth = jax.jit(lambda y: smoother.smooth_states(y, D, A, dynamics_weight=w, ridge=r))
        np.testing.assert_allclose(smooth(y), expected, rtol=1e-9, atol=1e-10)


def test_spectral_radius_is_the_largest_eigenvalue_also_where_none_is_real():
    drawn = np.random.default_rng(8).normal(size=(20, 4, 4)).astype(np.float32)
    drawn[0] = 0.5 * np.eye(4)
    drawn[1] = np.diag([0, 1, 2], 1)[:4, :4]  # nilpotent
    found = jax.jit(dlds.spectral_radius)(drawn)
    expected = np.abs(np.linalg.eigvals(drawn)).max(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
