"""Chunked DPLR systems against a dense float64 recurrence, and the kernel by Cauchy sums."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_dplr import both, complex_normal, dense_step, random_arguments, readout

import pspike_jax
from pspike_jax.functional.convolution import convolve
from pspike_jax.functional.dplr import dplr_kernel
from pspike_jax.functional.dplr_chunked import (
    RealSystem,
    _inverse,
    chunked_dplr,
    real_bilinear_dplr,
    unattuned,
)

quick_jit = jax.jit(lambda *a: run(*a[:-1], length=len(a[-1])))


def run(u, Lambda, P, B, C_tilde, dt, start, length):
    """Outputs and final state with readouts that are attuned to `length`."""
    attuned = real_bilinear_dplr(Lambda, P, P.conj(), B, C_tilde, dt)
    initial = None if start is None else jnp.concatenate([start.real, start.imag], axis=-1)
    return chunked_dplr(u, unattuned(attuned, length), initial)


def expected(u, Lambda, P, B, C_tilde, dt, start, length):
    """The same by a float64 loop over the dense state of each feature."""
    batch, steps, features = u.shape
    y = np.zeros(u.shape)
    final = np.zeros((batch, features, Lambda.shape[-1]), np.complex128)
    for h in range(features):
        A_bar, B_bar = dense_step(Lambda[h], P[h], P[h].conj(), B[h], float(dt[h]))
        rows = [readout(c[h], A_bar, length) for c in C_tilde]
        for b in range(batch):
            x = np.zeros(len(B_bar), complex) if start is None else both(start[b, h])
            for t in range(steps):
                x = A_bar @ x + B_bar * u[b, t, h]
                y[b, t, h] += (rows[0] @ x).real
            final[b, h] = x[: Lambda.shape[-1]]
            z = np.zeros(len(B_bar), complex)
            for t in reversed(range(steps)):
                if len(rows) == 2:
                    y[b, t, h] += (rows[1] @ z).real
                z = A_bar @ z + B_bar * u[b, t, h]
    return y, final


def problem(rng, steps, directions, N=3, state=False):
    """Arguments of `run` without the length, two rows and three features."""
    Lambda, P, _, B, _, dt = random_arguments(rng, 3, N)
    C_tilde = complex_normal(rng, directions, 3, N)
    start = complex_normal(rng, 2, 3, N) if state else None
    return rng.normal(size=(2, steps, 3)).astype(np.float32), Lambda, P, B, C_tilde, dt, start


def peak_error(actual, wanted):
    return np.max(np.abs(np.asarray(actual) - wanted)) / np.max(np.abs(wanted))


@pytest.mark.parametrize("steps, directions, state", [
    (1, 2, True), (37, 2, False), (128, 1, True), (300, 2, True),
])
def test_chunked_dplr_matches_a_float64_recurrence(rng, steps, directions, state):
    arguments = problem(rng, steps, directions, state=state)
    y, final = quick_jit(*arguments, np.zeros(512))
    wanted_y, wanted_final = expected(*arguments, 512)
    # The accuracy that the diagonal engine has; measured here: below 2e-6.
    assert peak_error(y, wanted_y) < 1e-5
    wanted_final = np.concatenate([wanted_final.real, wanted_final.imag], axis=-1)
    assert peak_error(final, wanted_final) < 1e-5


@pytest.mark.parametrize("length", [16, 2048])
def test_unattuned_readouts_stay_exact_where_a_step_hardly_moves_the_state(rng, length):
    u, Lambda, P, B, C_tilde, _, _ = problem(rng, 200, 1, N=8)
    dt = np.full(3, 1e-3, np.float32)
    y, _ = quick_jit(u, Lambda, P, B, C_tilde, dt, None, np.zeros(length))
    wanted, _ = expected(u, Lambda, P, B, C_tilde, dt, None, length)
    # Powers of the matrix itself, not of its increment, are off by 1e-4 and more here.
    assert peak_error(y, wanted) < 1e-5


def test_chunked_dplr_has_the_gradients_of_the_convolution(rng):
    u, Lambda, P, B, C_tilde, dt, _ = problem(rng, 150, 2, N=4)
    weights = rng.normal(size=u.shape).astype(np.float32)

    def by_chunks(u, Lambda, P, B, C_tilde, dt):
        return jnp.sum(weights * run(u, Lambda, P, B, C_tilde, dt, None, 150)[0])

    def by_convolution(u, Lambda, P, B, C_tilde, dt):
        return jnp.sum(weights * convolve(u, dplr_kernel(Lambda, P, P.conj(), B, C_tilde, dt, 150)))

    arguments = (u, Lambda, P, B, C_tilde, dt)
    every = tuple(range(6))
    chunked = jax.jit(jax.grad(by_chunks, argnums=every))(*arguments)
    convolved = jax.jit(jax.grad(by_convolution, argnums=every))(*arguments)
    for name, a, b in zip(("u", "Lambda", "P", "B", "C", "dt"), chunked, convolved):
        # The kernel's gradients are held to float64 within 1e-4 by tests/test_dplr.py.
        assert peak_error(a, b) < 1e-4, name


def contraction(rng, H, S):
    """Return A - I, (H, S, S), for transitions of norm 0.9 to 0.98 that mix all states."""
    skew = rng.normal(size=(H, S, S))
    turn = np.linalg.qr(np.eye(S) + 0.1 * (skew - skew.swapaxes(1, 2)))[0]
    return rng.uniform(0.9, 0.98, (H, 1, 1)) * turn - np.eye(S)


def dense_adjoint(y_bar, final_bar, u, increment, inject, read, start):
    """Return values and gradients of a two-sided dense system by a float64 loop over steps.

    Rows are states: x_t = x_{t-1} A + u_t b, z_t = z_{t+1} A + u_t b, y_t = c x_t + c' z_{t+1}.
    """
    A, L = increment + np.eye(increment.shape[-1]), u.shape[1]
    x, z = np.zeros((2, L + 1, *start.shape))
    x[0] = start
    step = lambda state, t: np.einsum("bhm,hmn->bhn", state, A) + u[:, t, :, None] * inject
    for t in range(L):
        x[t + 1] = step(x[t], t)
    for t in reversed(range(L)):
        z[t] = step(z[t + 1], t)  # z[L] = 0 stands behind the last step
    y = np.einsum("tbhm,hm->bth", x[1:], read[:, 0]) + np.einsum("tbhm,hm->bth", z[1:], read[:, 1])
    u_bar, A_bar, b_bar, c_bar = (np.zeros_like(a) for a in (u, A, inject, read))

    def pull(adjoint, before, t):
        u_bar[:, t] += np.sum(adjoint * inject, axis=-1)
        b_bar[:] += np.einsum("bhm,bh->hm", adjoint, u[:, t])
        A_bar[:] += np.einsum("bhm,bhn->hmn", before, adjoint)
        return np.einsum("bhn,hmn->bhm", adjoint, A)

    adjoint = final_bar
    for t in reversed(range(L)):
        g = y_bar[:, t, :, None]
        c_bar[:, 0] += np.sum(g * x[t + 1], axis=0)
        adjoint = pull(adjoint + g * read[:, 0], x[t], t)
    start_bar, adjoint = adjoint, np.zeros_like(start)
    for t in range(1, L):
        g = y_bar[:, t - 1, :, None]
        c_bar[:, 1] += np.sum(g * z[t], axis=0)
        adjoint = pull(adjoint + g * read[:, 1], z[t + 1], t)
    return (y, x[L]), (u_bar, A_bar, b_bar, c_bar, start_bar)


@pytest.mark.parametrize("steps", [5, 150, 300])
def test_chunked_dplr_has_the_gradients_of_a_float64_adjoint(rng, steps):
    B, H, S = 2, 3, 6
    normal = lambda *shape: np.float32(rng.normal(size=shape))
    arguments = (
        normal(B, steps, H), np.float32(contraction(rng, H, S)), normal(H, S), normal(H, 2, S),
        normal(B, H, S),
    )
    cotangents = normal(B, steps, H), normal(B, H, S)

    @jax.jit
    def pull_back(arguments, cotangents):
        run = lambda u, E, b, c, start: chunked_dplr(u, RealSystem(E, b, c), start)
        values, pull = jax.vjp(run, *arguments)
        return values, pull(cotangents)

    got = jax.tree.leaves(pull_back(arguments, cotangents))
    wide = [np.float64(a) for a in (*cotangents, *arguments)]
    wanted = jax.tree.leaves(dense_adjoint(*wide))
    names = ("y", "final", "u", "increment", "inject", "read", "start")
    for name, g, w in zip(names, got, wanted, strict=True):
        # The accuracy of the diagonal engine.
        assert peak_error(g, w) < 1e-5, name


def test_inverse_and_its_gradient_match_float64(rng):
    """I - A for contractions A, as `unattuned` inverts; conditions up to 100."""
    matrix, cotangent = -np.float32(contraction(rng, 4, 8)), np.float32(rng.normal(size=(4, 8, 8)))
    inverse, pull = jax.vjp(_inverse, jnp.asarray(matrix))
    wanted = np.linalg.inv(np.float64(matrix))
    turned = wanted.swapaxes(1, 2)
    assert peak_error(inverse, wanted) < 1e-5
    assert peak_error(pull(cotangent)[0], -turned @ np.float64(cotangent) @ turned) < 1e-5


def test_official_trains_in_blocks_of_features_as_by_convolution():
    """Long enough for blocks of features. Ties part the engines once in 1e7 draws; here are 4e5."""
    key = jax.random.key(0)
    tokens = jax.random.randint(key, (8, 512), 0, 18)

    create = functools.partial(
        pspike_jax.create_model, "pspikessm", preset="official", d_model=96, n_layers=1, l_max=512
    )
    rngs = {"params": key, "spikes": key, "dropout": key}
    variables = jax.jit(create(engine="fft").init)(rngs, tokens)
    params = variables.pop("params")

    def gradient(engine):
        model = create(engine=engine)

        def loss(params, rest, noise_key):
            rngs = {"spikes": noise_key, "dropout": noise_key}
            (logits, _), new = model.apply(
                {"params": params, **rest}, tokens, train=True, rngs=rngs,
                mutable=["batch_stats"],
            )
            return jnp.sum(jnp.sin(logits)), new

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, variables, key)

    (loss, _), gradients = gradient("chunked")
    (by_fft, _), expected_gradients = gradient("fft")
    np.testing.assert_allclose(loss, by_fft, rtol=1e-5)
    gradients, expected_gradients = map(jax.tree.leaves, (gradients, expected_gradients))
    largest = max(np.max(np.abs(g)) for g in expected_gradients)
    for a, b in zip(gradients, expected_gradients):
        # Two engines, each within 1e-4 of the truth, and elements at the corners of the clamp.
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-4 * largest)
